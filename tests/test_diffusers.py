"""With diffusers, both ways: its networks here, ours in its schedulers and as its pipelines."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    UNet2DConditionModel,
    UNet2DModel,
)
from diffusers.schedulers import scheduling_dpmsolver_multistep as dpm
from diffusers.schedulers import scheduling_flow_match_euler_discrete as flow_match
from torch import Tensor

import minidiff
from faults.calls import command_line
from helpers import MINILM, ROOT, SCHEDULES, WIDTH, Pictures, Words, awake, names, noise, printed_by
from minidiff import copying, text
from minidiff.diffusers_networks import DiffusersUNet, DiffusersUNetConfig
from minidiff.diffusers_pipeline import (
    MiniDiffPipeline,
    MiniDiffUNet,
    save_diffusers,
    scheduler_for,
    scheduler_steps,
)
from minidiff.model import ModelConfig
from minidiff.networks import build
from minidiff.pipeline import Pipeline
from minidiff.recipe import TrainingConfig
from minidiff.samplers import sample, seeded_generator
from minidiff.spaces import Pixels
from minidiff.storage import CheckpointError
from minidiff.toys import MixtureDenoiser
from minidiff.training import Trainer
from minidiff.unet import UNetConfig

PAGE = (ROOT / "book" / "diffusers.md").read_text(encoding="utf-8")
TINY: dict[str, Any] = {"block_out_channels": (8, 16), "attention": (False, True)}


@pytest.fixture(autouse=True)
def surroundings(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield


# ---------------------------------------------------------------------------- its networks here


def test_without_text_it_is_their_unet_with_timesteps_from_1() -> None:
    network = build(DiffusersUNetConfig(**TINY, in_channels=3, text_dim=None)).eval()
    assert isinstance(network.unet, UNet2DModel)
    x = torch.randn(2, 3, 8, 8)
    expected = network.unet(x, torch.tensor([0, 999])).sample
    torch.testing.assert_close(network(x, torch.tensor([1, 1000])), expected)


def test_with_text_padding_and_other_pictures_mean_nothing() -> None:
    network = build(DiffusersUNetConfig(**TINY, text_dim=WIDTH)).eval()
    assert isinstance(network.unet, UNet2DConditionModel)
    x, t, tokens = torch.randn(2, 1, 8, 8), torch.tensor([3, 700]), torch.randn(2, 4, WIDTH)
    mask = torch.tensor([[True, True, False, False], [False] * 4])
    answer = network(x, t, tokens, mask)
    torch.testing.assert_close(network(x[:1], t[:1], tokens[:1, :2]), answer[:1])
    torch.testing.assert_close(network(x, t)[1:], answer[1:])  # an empty prompt is "no text"
    one = network(x, t, tokens[:1], mask[:1])  # one text for all pictures
    torch.testing.assert_close(one[1:], network(x[1:], t[1:], tokens[:1], mask[:1]))
    assert (network(x, t) - one).abs().max() > 1e-6
    assert answer.isfinite().all()


@pytest.mark.parametrize("encoder", ["words", None])
def test_a_recipe_trains_it_and_what_it_makes_is_a_pipeline(
    encoder: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "TextEncoder", Words)
    recipe = (
        f"text_encoder = {json.dumps(encoder or False)}\nimage_size = 8\nsteps = 30\n"
        "batch_size = 8\nlearning_rate = 3e-3\nwarmup = 2\nlog_every = 10\nmax_tokens = 6\n"
        "[diffusers_unet]\nblock_out_channels = [8, 16]\nattention = [false, true]\n"
        "options = {dropout = 0.01, attention_head_dim = 4}\n"
        + (f"text_dim = {WIDTH}\n" if encoder else "")
    )
    (tmp_path / "mine.toml").write_text(recipe, encoding="utf-8")
    config = TrainingConfig.recipe(tmp_path / "mine.toml")
    assert config.network.text_dim == (WIDTH if encoder else None)
    run = tmp_path / "run"
    Trainer(config, Pictures(), run).run()
    losses = [json.loads(line)["loss"] for line in (run / "log.jsonl").open(encoding="utf-8")]
    assert losses[-1] < losses[0]

    pipeline = minidiff.load(run, device="cpu")
    assert isinstance(pipeline.network, DiffusersUNet) and pipeline.config.network == config.network
    assert pipeline("", num_images_per_prompt=2, num_inference_steps=2).shape == (2, 1, 8, 8)
    if encoder:
        monkeypatch.setattr(Pipeline, "_notice", lambda *_: None)  # Words does not know it
        pipeline.__dict__["text_encoder"] = Words(max_tokens=6)
        assert pipeline(["only bar 1", ""], num_inference_steps=2).shape == (2, 1, 8, 8)
    longer = TrainingConfig.from_dict({**config.to_dict(), "steps": 31})
    Trainer(longer, Pictures(), run, resume=True).run()


def test_without_diffusers_its_networks_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DiffusersUNetConfig(**TINY, text_dim=None)
    Pipeline(build(config), ModelConfig(config, 8), device="cpu").save(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match="pip install diffusers, or take"):
        build(config)
    with pytest.raises(ImportError, match="pip install diffusers"):
        minidiff.load(tmp_path / "model")
    monkeypatch.delitem(sys.modules, "minidiff.diffusers_pipeline")
    with pytest.raises(ImportError, match="pip install diffusers"):
        importlib.import_module("minidiff.diffusers_pipeline")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"attention": (True,)}, r"one entry a level, got \(8, 16\) and \(True,\)"),
        ({"attention": (1, True)}, r"attention must be true or false at each level, got \(1, True"),
        ({"block_out_channels": 8}, "block_out_channels must be a list with one entry a level"),
        ({"block_out_channels": (8, 1.5)}, "block_out_channels must be a whole number from 1 to"),
        ({"in_channels": 0}, "in_channels must be a whole number from 1 to 65,536, got 0"),
        ({"text_dim": -1}, "text_dim must be a whole number from 1 to 65,536, got -1"),
        ({"text_dim": 0}, "text_dim must be a whole number from 1 to 65,536, got 0"),
        ({"options": {"out_channels": 2}}, "without block_out_channels, in_channels, .* got {'out"),
        ({"options": {"act_fn": print}}, "options must be plain values: .* not JSON"),
    ],
)
def test_settings_that_cannot_be_are_named(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        DiffusersUNetConfig(**{**TINY, **settings})


def test_what_diffusers_refuses_is_told_with_its_words() -> None:
    for options, told in (
        ({"droppout": 0.1}, "no UNet2DModel of .*droppout"),
        ({"down_block_types": ["Down", "Down"]}, "no UNet2DModel of .*Down does not exist"),
    ):
        with pytest.raises(ValueError, match=told):
            build(DiffusersUNetConfig(**TINY, text_dim=None, options=options))


def test_copies_need_diffusers_only_where_they_use_it(tmp_path: Path) -> None:
    copied = copying.copy(["networks"], tmp_path)
    assert copied.needs == ["torch"] and "diffusers_networks.py" in names(tmp_path)
    code = (
        "import sys\n"
        "sys.modules['minidiff'] = sys.modules['diffusers'] = None\n"
        "import networks, torch\n"
        "config = networks.UNetConfig(channels=(32,), attention=(False,), text_dim=None)\n"
        "print(networks.build(config)(torch.zeros(1, 1, 4, 4), torch.ones(1)).shape)\n"
        "try:\n    networks.build(networks.DiffusersUNetConfig())\n"
        "except ImportError as error:\n    print(error)\n"
    )
    printed = printed_by(code, tmp_path).splitlines()
    assert printed[0] == "torch.Size([1, 1, 4, 4])" and "pip install diffusers" in printed[1]
    assert "diffusers" in copying.foreign(["diffusers_pipeline"])


# ------------------------------------------------------------------------------ its schedulers


def mixture(name: str) -> MixtureDenoiser:
    means = torch.tensor([[1.0, -1.0], [-1.0, 0.5]], dtype=torch.float64)
    covariances = 0.04 * torch.eye(2, dtype=torch.float64).expand(2, 2, 2)
    half = torch.full((2,), 0.5, dtype=torch.float64)
    return MixtureDenoiser(SCHEDULES[name], half, means, covariances)


def config_for(name: str, **changes: Any) -> ModelConfig:
    name, _, zero = name.partition(", ")
    shape = UNetConfig(channels=(32,), attention=(False,), text_dim=None)
    return ModelConfig(
        shape, 8, schedule=name, zero_terminal_snr=bool(zero),
        **{"prediction_type": "v", "shift": 1.0, **changes},
    )  # fmt: skip


def both(
    scheduler: Any, denoiser: Any, sampler: str, steps: int, **options: Any
) -> tuple[Tensor, Tensor]:
    x_T = noise(16, 2, seed=4)

    def generators() -> list[torch.Generator]:
        return [seeded_generator(0, i) for i in range(16)]

    ours = sample(denoiser, x_T, sampler, steps, generators())
    states = list(scheduler_steps(scheduler, denoiser, x_T, steps, generators(), **options))
    assert len(states) == steps
    return ours, states[-1]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("steps", [1, 5, 20])
@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpmpp_2m", "dpmpp_2m_sde"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_they_draw_what_our_samplers_draw(name: str, sampler: str, steps: int) -> None:
    """Their tables are float32; measured: 2e-6, and 0.012 where they begin a little before T."""
    config = config_for(name)
    if name == "straight" and sampler == "ddpm":
        with pytest.raises(ValueError, match=r"no scheduler for sampler 'ddpm' .* choose one of"):
            scheduler_for(config, sampler)
        return
    ours, theirs = both(scheduler_for(config, sampler), mixture(name), sampler, steps)
    late = name.endswith("SNR") and sampler.startswith("dpmpp")
    torch.testing.assert_close(theirs, ours, rtol=0, atol=0.03 if late else 1e-5)


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "dpmpp_2m_sde"])
@pytest.mark.parametrize("steps", [1, 2, 7, 33])
def test_on_the_straight_line_every_digit_agrees(
    sampler: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the model's shift, and steps that do not divide T. They cast their state to float32."""
    double = types.ModuleType("torch")
    double.__dict__.update(torch.__dict__, float32=torch.float64)
    config = config_for("straight", prediction_type="flow", shift=3.0)
    scheduler, denoiser = scheduler_for(config, sampler), mixture("straight")
    denoiser.schedule = config.make_schedule()
    for module in (dpm, flow_match):
        monkeypatch.setattr(module, "torch", double)
    ours, theirs = both(scheduler, denoiser, sampler, steps)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-12)


def test_other_schedulers_for_the_same_noise() -> None:
    known = scheduler_for(config_for("linear", prediction_type="eps"), "ddim")
    assert known.config.prediction_type == "epsilon"
    euler = EulerDiscreteScheduler.from_config(known.config)
    ours, theirs = both(euler, mixture("linear"), "ddim", 20)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)  # measured 6e-6
    x = noise(16, 2)
    *_, plain = scheduler_steps(known, mixture("linear"), x, 20)
    *_, fresh = scheduler_steps(known, mixture("linear"), x, 20, seeded_generator(0), eta=1.0)
    assert (fresh - plain).abs().max() > 0.1


def test_a_scheduler_for_another_noise_is_refused() -> None:
    straight = scheduler_for(config_for("straight"), "dpmpp_2m")
    short = scheduler_for(config_for("straight", num_train_timesteps=500), "ddim")
    x = noise(2, 2)
    for scheduler, name in (
        (DDIMScheduler(), "cosine"), (DDIMScheduler(100), "linear"), (DDIMScheduler(), "straight"),
        (straight, "linear"), (short, "straight"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"another noise than .*: take the one that schedule"):
            scheduler_steps(scheduler, mixture(name), x)
    with pytest.raises(ValueError, match="num_inference_steps must be from 1 to 1000"):
        scheduler_steps(straight, mixture("straight"), x, 1001)
    with pytest.raises(ValueError, match="'heun' on schedule 'linear': choose one of ddim, ddpm,"):
        scheduler_for(config_for("linear"), "heun")


# -------------------------------------------------------------------------------- its pipelines


def small(network: Any, **changes: Any) -> Pipeline:
    reads = network.text_dim is not None
    torch.manual_seed(0)
    made = awake(network) if isinstance(network, UNetConfig) else build(network)
    config = ModelConfig(
        network, (8, 16), Pixels(0.4, 0.8), text_encoder="minilm" if reads else None,
        text_fingerprint=MINILM if reads else None, **changes,
    )  # fmt: skip
    record = {"data": {"path": "D:/ann/patients"}, "words": ["secret"], "seconds": 3}
    return Pipeline(made, config, record, device="cpu")


SHAPE = UNetConfig(in_channels=3, channels=(32, 32), attention=(False, True), text_dim=384)
FORMS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "text, colour": (SHAPE, {}, "dpmpp_2m_sde"),
    "text, ddim": (SHAPE, {}, "ddim"),
    "eps, clipped": (
        dataclasses.replace(SHAPE, text_dim=None),
        {"schedule": "linear", "prediction_type": "eps"}, "ddpm",
    ),
    "flow elsewhere": (
        dataclasses.replace(SHAPE, in_channels=1, text_dim=None),
        {"schedule": "cosine", "shift": 2.0}, "dpmpp_2m",
    ),
    "their network": (DiffusersUNetConfig(**TINY), {}, "dpmpp_2m_sde"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_folder_of_diffusers_draws_the_same(form: str, tmp_path: Path) -> None:
    network, changes, sampler = FORMS[form]
    pipeline = small(network, **changes)
    save_diffusers(pipeline, tmp_path / "folder", sampler)
    assert names(tmp_path) == ["folder"]
    files = {p.relative_to(tmp_path / "folder").as_posix() for p in tmp_path.rglob("*.*")}
    assert files == {
        "model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json", "README.md",
    }  # fmt: skip
    theirs = DiffusionPipeline.from_pretrained(tmp_path / "folder")
    assert type(theirs) is MiniDiffPipeline
    assert type(theirs.scheduler) is type(scheduler_for(pipeline.config, sampler))
    reads = pipeline.config.text_encoder is not None
    asked: dict[str, Any] = {"prompt": ["gold", ""] if reads else ""}
    if reads:
        asked |= {"negative_prompt": "water", "guidance_scale": 2.0}
    asked |= {"num_images_per_prompt": 2, "num_inference_steps": 5}
    ours = pipeline(**asked, sampler=sampler, seed=3)
    theirs.set_progress_bar_config(disable=True)
    generators = [seeded_generator(3, i % 2) for i in range(len(ours))]
    drawn = theirs(**asked, generator=generators, output_type="pt").images
    torch.testing.assert_close(drawn * 2 - 1, ours, rtol=0, atol=1e-4)  # measured 5e-6
    assert ours.std() > 0.05 and ours.shape[2:] == (8, 16)


def test_pictures_come_as_diffusers_gives_them(tmp_path: Path) -> None:
    pipeline = small(dataclasses.replace(SHAPE, text_dim=None))
    save_diffusers(pipeline, tmp_path / "new" / "folder", "ddim")
    theirs = MiniDiffPipeline.from_pretrained(tmp_path / "new" / "folder")
    theirs.set_progress_bar_config(disable=True)
    asked: dict[str, Any] = {"num_images_per_prompt": 2, "num_inference_steps": 2}
    pictures = [
        theirs(**asked, generator=seeded_generator(0), output_type=kind).images
        for kind in ("pil", "np", "pt")
    ]
    assert [p.size for p in pictures[0]] == [(16, 8)] * 2 and pictures[0][0].mode == "RGB"
    assert pictures[1].shape == (2, 8, 16, 3) and 0 <= pictures[1].min() <= pictures[1].max() <= 1
    torch.testing.assert_close(torch.from_numpy(pictures[1]).permute(0, 3, 1, 2), pictures[2])
    (again,) = theirs(**asked, generator=seeded_generator(0), output_type="pt", return_dict=False)
    assert torch.equal(again, pictures[2])
    for wrong, told in (
        ({"output_type": "png"}, 'output_type must be "pil", "np" or "pt", got \'png\''),
        ({"num_images_per_prompt": 0}, "nothing to draw: 0 pictures of 1 prompts"),
        ({"prompt": "gold"}, "trained without text: leave the prompt empty"),
        ({"num_inference_steps": 0}, "num_inference_steps must be from 1"),
        ({"generator": [seeded_generator(0)]}, "1 generators for 2 pictures"),
    ):
        with pytest.raises(ValueError, match=re.escape(told)):
            theirs(**{**asked, **wrong})
    half = MiniDiffPipeline.from_pretrained(tmp_path / "new" / "folder").to(torch.bfloat16)
    half.set_progress_bar_config(disable=True)
    near = half(**asked, generator=seeded_generator(0), output_type="pt").images
    assert near.dtype == torch.float32 and (near - again).abs().mean() < 0.1


def test_a_folder_tells_nothing_of_this_machine(tmp_path: Path) -> None:
    pipeline = small(dataclasses.replace(SHAPE, text_dim=None))
    save_diffusers(pipeline, tmp_path / "folder")
    config = (tmp_path / "folder" / "unet" / "config.json").read_text(encoding="utf-8")
    assert "patients" not in config and "secret" not in config and '"seconds": 3' in config
    assert pipeline.record["words"] == ["secret"]  # it keeps its own
    index = json.loads((tmp_path / "folder" / "model_index.json").read_text(encoding="utf-8"))
    assert index["unet"] == ["minidiff.diffusers_pipeline", "MiniDiffUNet"]


def test_nothing_is_overwritten_and_nothing_stays_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = small(dataclasses.replace(SHAPE, text_dim=None))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine", encoding="utf-8")
    for place in ("mine", "mine/notes.txt"):
        with pytest.raises(FileExistsError, match="holds something already: choose another"):
            save_diffusers(pipeline, tmp_path / place)
    with pytest.raises(ValueError, match="no scheduler for sampler 'heun'"):
        save_diffusers(pipeline, tmp_path / "folder", "heun")
    foreign = dataclasses.replace(pipeline.config, network=SHAPE, text_encoder="ann/encoder")
    with pytest.raises(ValueError, match="'ann/encoder', which others do not have"):
        save_diffusers(Pipeline(awake(SHAPE), foreign, device="cpu"), tmp_path / "folder")

    def full(*_: Any, **__: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(MiniDiffPipeline, "save_pretrained", full)
    with pytest.raises(OSError, match="the disk is full"):
        save_diffusers(pipeline, tmp_path / "folder")
    assert names(tmp_path) == ["mine"] and names(tmp_path / "mine") == ["notes.txt"]


def test_neither_pickles_nor_other_encoders_are_opened(tmp_path: Path) -> None:
    pipeline = small(SHAPE)
    save_diffusers(pipeline, tmp_path / "folder")
    config = tmp_path / "folder" / "unet" / "config.json"
    known = config.read_text(encoding="utf-8")
    config.write_text(known.replace('"minilm"', '"ann/encoder"'), encoding="utf-8")
    for kind in (DiffusionPipeline, MiniDiffPipeline):
        with pytest.raises(CheckpointError, match="'ann/encoder', which nobody here has asked for"):
            kind.from_pretrained(tmp_path / "folder")
    config.write_text(known, encoding="utf-8")
    weights = config.parent / "diffusion_pytorch_model.safetensors"
    torch.save(MiniDiffUNet.of(pipeline).state_dict(), weights.with_suffix(".bin"))
    weights.unlink()
    for kind in (DiffusionPipeline, MiniDiffPipeline):
        with pytest.raises(OSError, match="safetensors"):
            kind.from_pretrained(tmp_path / "folder")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small(dataclasses.replace(SHAPE, text_dim=None)).save("model")
    result = command_line(["export", "model", "for-diffusers"])
    assert (result.status or 0, result.out) == (0, "for-diffusers\n")
    assert type(DiffusionPipeline.from_pretrained("for-diffusers")) is MiniDiffPipeline
    for words, told in (
        (["model", "for-diffusers"], "for-diffusers holds something already"),
        (["model", "more", "--to", "word"], "--to 'word' is not known: give diffusers"),
        (["runs/x", "more"], "no model 'runs/x': give one that ships"),
    ):
        result = command_line(["export", *words])
        assert result.status and told in result.err and "Traceback" not in result.err
    assert names(tmp_path) == ["for-diffusers", "model"]


# ------------------------------------------------------------------------------------- the page


def test_the_page_works_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (recipe,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    Path("mine.toml").write_text(recipe, encoding="utf-8")
    network = build(TrainingConfig.recipe("mine.toml").network)
    assert isinstance(network.unet, UNet2DConditionModel)
    assert network.unet.config.dropout == 0.1

    torch.manual_seed(0)
    made = UNet2DModel(
        sample_size=32, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    made.save_pretrained("their-model/unet")
    place: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, place)
        if "theirs" not in place and "scheduler" not in place:
            assert place["pictures"].shape == (4, 3, 32, 32) and place["pictures"].std() > 0
            x = torch.randn(1, 3, 32, 32)
            with torch.no_grad():
                said = place["denoiser"].output(x, 1000)
            torch.testing.assert_close(said, made.eval()(x, 999).sample)
    assert place["pictures"].shape == (4, 1, 64, 64) and (place["pictures"] > 0.9).any()
    assert Path("gold.png").stat().st_size > 100
    asked: dict[str, Any] = {"num_images_per_prompt": 4, "num_inference_steps": 3}
    generators = [seeded_generator(0, i) for i in range(4)]
    theirs = place["theirs"]("gold", **asked, generator=generators, output_type="pt").images
    ours = place["pipeline"]("gold", **asked, seed=0)
    torch.testing.assert_close(theirs * 2 - 1, ours, rtol=0, atol=1e-3)
