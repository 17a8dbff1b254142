"""Models on the Hugging Face Hub: fetched by their names, and given to others with a card.

The network is asked only for a name such as "owner/model" (or "owner/model@revision"), and only
where no such folder is here. Of a repository two files are taken, config.json and
model.safetensors, and the second only after the first says that it is a model of ours: no pickle
and no code of anybody's is fetched, let alone run. What was fetched stays in the Hub's cache. A
revision that is a whole commit (40 hexadecimal digits) is taken from there without asking again;
of a branch or of none the newest is asked for, and the cached one taken where there is no network.
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

from minidiff.encoder_files import ENCODERS
from minidiff.inputs import sides, warn
from minidiff.spaces import Latents
from minidiff.stages import FIRST
from minidiff.storage import FORMAT, CheckpointError, info_hash, read_info, read_tensors

FILES = ("config.json", "model.safetensors")
SENT = ("format", "version", "model", "record", "first")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def is_name(text: str) -> bool:
    """Whether this could be a model on the Hub: owner/model, perhaps with @revision."""
    part = r"[A-Za-z0-9][\w.-]*"
    return re.fullmatch(rf"{part}/{part}(@[\w./-]+)?", text) is not None


def fetch(name: str) -> Path:
    """The folder of a model of the Hub in its cache; downloaded if it is not there.

    Args:
        name: "owner/model" or "owner/model@revision" (a branch, a tag or a commit).

    Raises:
        FileNotFoundError: if there is no such model or revision, or it cannot be reached.
        CheckpointError: for a repository that holds no model of ours, or one that reads texts with
            an encoder of its own, be it in the cache; nothing more than its config.json is
            downloaded then.

    Warns:
        UserWarning: when the Hub is asked, for that may have been a slip in the path of a folder.
    """
    from huggingface_hub import errors

    repository, _, revision = name.partition("@")
    pinned = re.fullmatch(r"[0-9a-f]{40}", revision) is not None
    try:
        if pinned and (folder := _cached(repository, revision)):
            return folder
        warn(f"there is no folder {name} here: the Hugging Face Hub is asked for {repository}")
        return _downloaded(repository, revision)
    except CheckpointError:
        raise
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(
            f"{repository} has no revision {revision!r} on the Hub: give one of its commits, tags "
            "or branches, or none for the newest"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"there is neither a folder {name} here nor a model {repository} on the Hub that you "
            "may see: check the spelling, or log in with `hf auth login` if it is private"
        ) from error
    except Exception as error:  # of requests or httpx, as the Hub's library is older or newer
        if folder := _cached(repository, revision):
            return folder
        raise FileNotFoundError(
            f"there is no folder {name} here, and the Hub could not be asked for a model of that "
            f"name ({_first_line(error)}): go online once to fetch it, or give a model that is here"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _cached(repository: str, revision: str) -> Path | None:
    """The folder of what was downloaded before, or None; asks nobody.

    It may have been fetched by another program, so it is looked at as what comes from the Hub.
    """
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(repository, file, revision=revision or None) for file in FILES]
    if not all(isinstance(path, str) for path in found):
        return None
    config = Path(str(found[0]))
    where = f"{repository} (revision {config.parent.name[:12]}, in the Hub's cache)"
    whole = all((config.parent / file).is_file() for file in _check(config, where))
    return config.parent if whole else None


def _downloaded(repository: str, revision: str) -> Path:
    from huggingface_hub import HfApi, hf_hub_download

    info = HfApi().model_info(repository, revision=revision or None, timeout=60)
    commit, files = str(info.sha), {file.rfilename for file in info.siblings or ()}
    where = f"{repository} (revision {commit[:12]})"
    if not files.issuperset(FILES):
        pickles = sorted(file for file in files if file.endswith(PICKLES))
        more = (
            f"; {pickles[0]} is a pickle, which can run code when it is opened" if pickles else ""
        )
        raise CheckpointError(
            f"{where} is not a model of minidiff: it lacks "
            f"{' and '.join(sorted(set(FILES) - files))}{more}. Nothing was downloaded"
        )
    config = Path(hf_hub_download(repository, "config.json", revision=revision or None))
    more_files = _check(config, where)
    for file in more_files:
        if file not in files:
            raise CheckpointError(
                f"{where} is half a model: it lacks {file}. Its weights were not downloaded"
            )
    for file in [*more_files, "model.safetensors"]:
        hf_hub_download(repository, file, revision=config.parent.name)
    return config.parent


def _check(config: Path, where: str) -> list[str]:
    """Look at a config.json before anything that it names is taken.

    Returns:
        the files of weights that belong to it, besides model.safetensors.

    Raises:
        CheckpointError: for that of another library, or one that names a text encoder of its own.
    """
    try:
        info = json.loads(config.read_text("utf-8"))
        kind, encoder = info["format"], _drawing(info).get("text_encoder")
        more = _more(info["model"])
    except (ValueError, TypeError, KeyError, AttributeError):
        kind, encoder, more = None, None, []
    if kind != FORMAT:
        raise CheckpointError(
            f"{where} is a model of another library: its config.json does not say "
            f"format = {FORMAT!r}. Its weights were not taken"
        )
    if encoder is not None and encoder not in ENCODERS:
        raise CheckpointError(
            f"{where} reads texts with {encoder!r}, which nobody here has asked for: only "
            f"{' and '.join(ENCODERS)} are taken from a model of the Hub. Its weights were not "
            "taken"
        )
    return more


def _more(model: dict[str, Any]) -> list[str]:
    """Files of weights besides model.safetensors: of a cascade, of a model in latents."""
    return [FIRST] * (model.get("first_stage") is not None) + [Latents.FILE] * ("latents" in model)


def _drawing(info: dict[str, Any]) -> dict[str, Any]:
    """The settings of the model that is told what to draw: of a cascade, the first stage."""
    cascade = info["model"].get("first_stage") is not None
    model: dict[str, Any] = (info.get("first", info) if cascade else info)["model"]
    return model


def card(folder: Path) -> str:
    """What a model is and how it came about, in Markdown, from its own record; for README.md."""
    info = read_info(folder)
    model, record = info["model"], public_record(info.get("record", {}))
    encoder = _drawing(info).get("text_encoder")
    text, cascade = encoder is not None, " in two stages" if "first_stage" in model else ""
    task = "text-to-image" if text else "unconditional-image-generation"
    lines = [
        "---", "library_name: minidiff", f"pipeline_tag: {task}",
        "tags: [diffusion, safetensors]", "---", "", "# {name}", "",
        f"A diffusion model of {' × '.join(map(str, sides(model['image_size'])))} pixels{cascade}"
        + (f", told by texts ({encoder})." if text else ", without text."), "",
        "```python", "import minidiff", "", 'pipeline = minidiff.load("{name}")',
        f"images = pipeline({json.dumps('a text' if text else '')}, num_images_per_prompt=16)",
        "```", "",
    ]  # fmt: skip
    facts = {
        "pictures it learnt from": record.get("training_images"),
        "pictures seen": record.get("images_seen_in_all"),
        "minutes": round(record["seconds"] / 60) if "seconds" in record else None,
        "on": record.get("device"),
        "torch": record.get("torch"),
        **record.get("quality", {}),
    }
    known = [f"| {what} | {value:,} |" if isinstance(value, int) else f"| {what} | {value} |"
             for what, value in facts.items() if value is not None]  # fmt: skip
    if known:
        lines += ["## How it came about", "", "| | |", "|---|---|", *known, ""]
    if recipe := record.get("recipe"):
        lines += ["Its recipe:", "", "```json", json.dumps(recipe, indent=2), "```", ""]
    lines += [
        "What its pictures were, who may use them and what it must not be used for is not known to "
        "the program that wrote this card: say it here.",
    ]
    return "\n".join(lines) + "\n"


def public(info: dict[str, Any]) -> bytes:
    """config.json as others get it: no paths of this machine, no words of the captions."""
    shown = {n: v for n, v in info.items() if n in SENT}
    shown["record"] = public_record(shown.get("record", {}))
    if "first" in shown:
        first = shown["first"]
        shown["first"] = {**first, "record": public_record(first.get("record", {}))}
    shown["files"] = {name: info["files"][name] for name in _weights(info)}
    shown["sha256"] = info_hash(shown)
    return json.dumps(shown, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace")


def public_record(record: dict[str, Any]) -> dict[str, Any]:
    """A copy of a record as others get it."""
    record = copy.deepcopy(record)
    for stage in (record, *record.get("stages", ())):
        if isinstance(stage.get("data"), dict):
            stage["data"] = {**stage["data"], "path": None}
        stage.pop("words", None)
        recipe = stage.get("recipe")
        for name in ("autoencoder", "first", "teacher"):
            if isinstance(recipe, dict) and recipe.get(name):
                recipe[name] = re.split(r"[/\\]", str(recipe[name]))[-1]
    return record


def _weights(info: dict[str, Any]) -> list[str]:
    return [*FILES[1:], *_more(info["model"])]


def push(folder: Path, name: str, private: bool = False) -> str:
    """Give a model to others: its two files and a card, as one commit.

    A README.md that the repository has already stays as it is. What the record says of folders of
    this machine and of words in the captions is left out.

    Args:
        folder: of the model, see `minidiff.shelf.find_model`.
        name: owner/model; made if there is none.
        private: whether only its owner may see a repository that is made.

    Returns:
        the address of the commit, and so of the revision.

    Raises:
        CheckpointError: for a folder that is no whole, unaltered model.
        ConnectionError: where the Hub cannot be reached, or says no for another reason.
        PermissionError: where nobody is logged in, or may not write there.
        ValueError: for what is no name, and for a model whose text encoder others do not have.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, errors, get_token

    if not is_name(name) or "@" in name:
        raise ValueError(f"{name!r} is no name on the Hub: give owner/model")
    info = read_info(folder)
    if "first_stage" in info["model"] and "first" not in info:
        raise ValueError(
            f"{folder} is half a cascade: write both stages into one folder with "
            "minidiff.load(...).save(folder), and give that"
        )
    if "conv_autoencoder" in info["model"]:
        raise ValueError(
            f"{folder} is an autoencoder, which draws nothing: give a model in latents"
        )
    for file in _weights(info):
        read_tensors(folder, file, info)  # as they were saved, or nothing is sent
    if (encoder := _drawing(info).get("text_encoder")) not in (None, *ENCODERS):
        raise ValueError(
            f"{folder} reads texts with {encoder!r}, which others do not "
            f"have: only models with {' or '.join(ENCODERS)}, or without text, can be given away"
        )
    files = {FILES[0]: public(info)}
    files |= {file: (folder / file).read_bytes() for file in _weights(info)}
    text = card(folder).replace("{name}", name)
    if get_token() is None:
        raise PermissionError(
            "nobody is logged in to the Hub: `hf auth login` asks for a token that may write"
        )
    api = HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        if not api.file_exists(name, "README.md"):
            files["README.md"] = text.encode("utf-8")
        adds = [CommitOperationAdd(place, content) for place, content in files.items()]
        done = api.create_commit(name, adds, commit_message="Model and card by minidiff")
    except errors.HfHubHTTPError as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status not in (401, 403):
            raise ConnectionError(f"{name} could not be written: {_first_line(error)}") from error
        raise PermissionError(
            f"{name} could not be written ({_first_line(error)}): log in as its owner with "
            "`hf auth login`, with a token that may write"
        ) from error
    except Exception as error:  # of requests or httpx, as the Hub's library is older or newer
        raise ConnectionError(
            f"the Hub could not be reached ({_first_line(error)}): nothing was sent"
        ) from error
    return str(done.commit_url)
