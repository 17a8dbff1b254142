"""Networks as ONNX graphs for the page that draws: written by torch.onnx, with narrow weights.

Weights travel in float16, the encoder's table of words in int8. All are float32 again before the
first picture: the runtime works that out once, when it opens the graph.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from minidiff import unet

LARGE = 1024  # numbers of a tensor from which on it is worth narrowing
TABLE, GROUP = 1_000_000, 32  # numbers that make a table of words; those that share a scale
MOST = 64  # pictures of a batch
LONGEST = 32  # tokens of a text


class Denoising(nn.Module):
    """A network that reads text: (x, t, tokens, mask[, numbers]) -> y."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, x: Tensor, t: Tensor, tokens: Tensor, mask: Tensor, numbers: Tensor | None = None
    ) -> Tensor:
        answer: Tensor = self.network(x, t, tokens, mask, numbers=numbers)
        return answer


class Enlarging(nn.Module):
    """A second stage: (x, t, picture) -> y."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, picture: Tensor) -> Tensor:
        answer: Tensor = self.network(x, t, picture=picture)
        return answer


class Reading(nn.Module):
    """The text encoder: ids (1, n) -> states (1, n, d)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        output = self.model(input_ids=ids, attention_mask=torch.ones_like(ids))
        states: Tensor = output.last_hidden_state
        return states


def denoiser(network: nn.Module, config: Any) -> onnx.ModelProto:
    """A network with a free number of pictures and tokens."""
    pictures = torch.export.Dim("pictures", min=1, max=MOST)
    tokens = torch.export.Dim("n", min=1, max=LONGEST)
    given: dict[str, tuple[Tensor, dict[int, Any]]] = {
        "x": (torch.zeros(3, *config.shape), {0: pictures}),
        "t": (torch.tensor([1.0, 500.0, 1000.0]), {0: pictures}),
        "tokens": (torch.zeros(3, 7, config.network.text_dim), {0: pictures, 1: tokens}),
        "mask": (torch.ones(3, 7, dtype=torch.bool), {0: pictures, 1: tokens}),
    }
    if config.network.numbers:
        given["numbers"] = torch.zeros(3, config.network.numbers), {0: pictures}
    return exported(Denoising(network), given, "y")


def enlarger(network: nn.Module, config: Any) -> onnx.ModelProto:
    """A second stage, for one picture at a time: they are large."""
    beside = torch.zeros(1, config.network.condition_channels, *config.shape[1:])
    given: dict[str, tuple[Tensor, dict[int, Any]]] = {
        "x": (torch.zeros(1, *config.shape), {}),
        "t": (torch.tensor([500.0]), {}),
        "picture": (beside, {}),
    }
    return exported(Enlarging(network), given, "y")


def encoder(model: nn.Module) -> onnx.ModelProto:
    """A text encoder with a free number of tokens."""
    n = torch.export.Dim("n", min=2, max=LONGEST)
    return exported(Reading(model), {"ids": (torch.arange(100, 107)[None], {1: n})}, "states")


def exported(
    module: nn.Module, given: dict[str, tuple[Tensor, dict[int, Any]]], output: str
) -> onnx.ModelProto:
    """The graph of a module with these inputs by name: an example, and which sizes are free."""
    examples, free = zip(*given.values())
    with quiet(), lengths_are_free(), torch.no_grad():
        program = torch.export.export(module.eval(), examples, dynamic_shapes=free)
        written = torch.onnx.export(
            program, dynamo=True, input_names=[*given], output_names=[output], verbose=False
        )
    assert written is not None
    model: onnx.ModelProto = written.model_proto
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]  # where in our code each node comes from: paths of this machine
    return model


@contextlib.contextmanager
def lengths_are_free() -> Iterator[None]:
    """`len(x)` of a tensor is a number; only `x.shape[0]` stays free while a graph is traced."""
    vars(unet)["len"] = lambda x: x.shape[0] if isinstance(x, Tensor) else builtins.len(x)
    try:
        yield
    finally:
        del vars(unet)["len"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that are not here and need not be."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


# ------------------------------------------------------------------------------ narrow weights


def narrowed(model: onnx.ModelProto, bits: int = 10) -> onnx.ModelProto:
    """The same graph with large weights in float16, and nodes that widen them.

    The weights of networks that ship are in half precision anyway. Of the encoder's table of words,
    half of its weights, only a few rows are ever taken: they travel as int8, with a scale for
    every `GROUP` of numbers, and only these rows are widened.

    Args:
        bits: of a float16's ten behind the point that are kept: with fewer, gzip packs it smaller.
    """
    graph = model.graph
    takers = {node.input[0]: node for node in graph.node if node.op_type == "Gather"}
    widening: list[onnx.NodeProto] = []
    instead: dict[str, list[onnx.NodeProto]] = {}  # of the node that makes this output
    kept = []
    for tensor in graph.initializer:
        array, name = numpy_helper.to_array(tensor), tensor.name
        if array.dtype != np.float32 or array.size < LARGE:
            kept.append(tensor)
        elif name in takers and array.size >= TABLE:
            narrow, scale = as_int8(array)
            kept += [
                numpy_helper.from_array(narrow, f"{name}.narrow"),
                numpy_helper.from_array(scale, f"{name}.scale"),
                numpy_helper.from_array(np.array([0, 0, -1]), f"{name}.shape"),
            ]
            instead[takers[name].output[0]] = rows_of(takers[name], name)
        else:
            kept.append(numpy_helper.from_array(as_float16(array, bits), f"{name}.narrow"))
            widening.append(widen(f"{name}.narrow", name))
    del graph.initializer[:]
    graph.initializer.extend(kept)
    nodes = [new for node in graph.node for new in instead.get(node.output[0], [node])]
    del graph.node[:]
    graph.node.extend([*widening, *nodes])
    del graph.value_info[:]
    onnx.checker.check_model(model)
    return model


def widen(narrow: str, wide: str) -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [narrow], [wide], to=onnx.TensorProto.FLOAT)


def rows_of(gather: onnx.NodeProto, table: str) -> list[onnx.NodeProto]:
    """Rows of a narrow table, then made wide: index (1, n) -> (1, n, d)."""
    index, (out,) = gather.input[1], gather.output
    return [
        onnx.helper.make_node("Gather", [f"{table}.narrow", index], [f"{table}.rows"]),
        onnx.helper.make_node("Gather", [f"{table}.scale", index], [f"{table}.scales"]),
        widen(f"{table}.rows", f"{table}.wide rows"),
        widen(f"{table}.scales", f"{table}.wide scales"),
        onnx.helper.make_node(
            "Mul", [f"{table}.wide rows", f"{table}.wide scales"], [f"{table}.groups"]
        ),
        onnx.helper.make_node("Reshape", [f"{table}.groups", f"{table}.shape"], [out]),
    ]


def as_int8(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(V, d) as whole numbers (V, d / GROUP, GROUP) and what to multiply them by, in float16."""
    groups = table.reshape(len(table), -1, GROUP)
    scale = (np.abs(groups).max(axis=2, keepdims=True) / 127).astype(np.float16)
    scale[scale == 0] = 1
    narrow = np.rint(groups / scale.astype(np.float32)).clip(-127, 127)
    return narrow.astype(np.int8), scale


def as_float16(array: np.ndarray, bits: int) -> np.ndarray:
    mantissa, exponent = np.frexp(array)  # from 0.5 to 1: the first bit is always there
    rounded = np.rint(np.ldexp(mantissa, bits + 1))
    return np.ldexp(rounded, exponent - bits - 1).astype(np.float16)
