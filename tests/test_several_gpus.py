"""The page about several GPUs: its commands, on two processes of a CPU, against one process."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from helpers import ROOT, log_of
from minidiff.storage import read_info

PAGE = (ROOT / "book" / "several_gpus.md").read_text(encoding="utf-8")
RECIPE = """
image_size = 8
text_encoder = false
steps = 6
batch_size = 4
log_every = 2
save_every = 3
[unet]
channels = [16]
attention = [false]
head_dim = 16
"""
# Started by hand, what the page starts by name: for one Python among several, and on Windows.
PROGRAMS = {"minidiff": ["-m", "minidiff"], "torchrun": ["-m", "torch.distributed.run"]}


def blocks(language: str) -> list[str]:
    found = re.findall(rf"(?ms)^```{language}\n(.+?)^```", PAGE)
    return [block.replace("\\\n", " ") for block in found]


def free_port() -> int:
    with socket.socket() as some:
        some.bind(("localhost", 0))
        return int(some.getsockname()[1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.toml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "my-pictures").mkdir()
    for i in range(6):
        picture = Image.new("RGB", (8, 8), (40 * i, 255 - 40 * i, 128))
        picture.save(tmp_path / "my-pictures" / f"{i}.png")
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    """As the page sets it; with this minidiff, whatever is installed."""
    own = {"MINIDIFF_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    return {**os.environ, **own, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def run(folder: Path, words: list[str]) -> str:
    command = [sys.executable, *PROGRAMS[words[0]], *words[1:]]
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, encoding="utf-8", timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def losses(folder: Path) -> list[float]:
    return [entry["loss"] for entry in log_of(folder) if "loss" in entry]


def processes(folder: Path) -> list[int]:
    """Of the log, and of the model's record."""
    record = read_info(folder / "model")["record"]
    return [entry["processes"] for entry in log_of(folder) if "loss" in entry] + [
        record["processes"]
    ]


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(folder: Path) -> None:
    """With the commands of the page; tests/test_training.py does it by accelerate's."""
    (block,) = [b for b in blocks("sh") if "ACCELERATE_USE_CPU" in b]
    settings, one, two = (line.split() for line in block.splitlines())
    assert settings == ["export", "OMP_NUM_THREADS=1", "ACCELERATE_USE_CPU=true"]
    run(folder, one)
    assert "(cpu, 2 processes)" in run(folder, two)

    alone = losses(folder / "runs" / "one")
    assert len(alone) == 3 and alone[0] != pytest.approx(alone[2], abs=1e-2)
    assert losses(folder / "runs" / "two") == pytest.approx(alone, abs=5e-5)
    assert processes(folder / "runs" / "one") == [1] * 4
    assert processes(folder / "runs" / "two") == [2] * 4


# Two machines of one processor each: what Slurm offers a script, played by this one.
SRUN = """#!/bin/sh
"$@" & first=$!
"$@" & second=$!
wait $first && wait $second
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt" or shutil.which("bash") is None, reason="needs bash")
def test_the_script_for_slurm_trains_on_two_machines_and_goes_on(folder: Path) -> None:
    (script,) = blocks("bash")
    programs = folder / "programs"
    programs.mkdir()
    torchrun = f'#!/bin/sh\nexec "{sys.executable}" {" ".join(PROGRAMS["torchrun"])} "$@"\n'
    fakes = {"srun": SRUN, "scontrol": "#!/bin/sh\necho localhost\n", "torchrun": torchrun}
    for name, text in fakes.items():
        (programs / name).write_text(text, encoding="utf-8")
        (programs / name).chmod(0o755)
    (folder / "train.sh").write_text(script.replace("29500", str(free_port())), encoding="utf-8")
    slurm = {"SLURM_JOB_ID": "1", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "1"}
    path = os.pathsep.join([str(programs), os.environ["PATH"]])

    def submit() -> str:
        done = subprocess.run(
            ["bash", "train.sh"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**environment(folder), **slurm, "SLURM_JOB_NODELIST": "localhost", "PATH": path},
            encoding="utf-8", timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    assert "2 processes" in submit()
    assert processes(folder / "runs" / "mine") == [2] * 4
    assert "finished already" in submit()  # it went on, instead of beginning anew
