"""Checkpoints that describe themselves and are complete or absent.

RUN/checkpoints/step_00000300/ holds `checkpoint.json`, `weights.safetensors`, the random states of every process and
DeepSpeed's shards. It is written under another name beside, verified, and renamed; RUN/checkpoints/latest names the
newest. Nothing in it is unpickled freely when it is read.
"""

import json
import pickle
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from worldmodel.errors import CheckpointError
from worldmodel.training import cluster, randomness
from worldmodel.training.durable import save_tensors, sync

if TYPE_CHECKING:
    from worldmodel.training.engine import Engine

VERSION = 1
FOLDER, LATEST = "checkpoints", "latest"
ABOUT, WEIGHTS = "checkpoint.json", "weights.safetensors"


@dataclass(frozen=True)
class Description:
    """What a checkpoint says about its model, as JSON values.

    Attributes:
        settings: resolved settings of the run, whole.
        identity: what a resumed run must share with it: settings of model and codecs, fingerprints of codecs and data.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        step: updates done.
        position: samples that the loader has given out, over all processes.
    """

    step: int = 0
    position: int = 0


def save(engine: "Engine", run: Path, progress: Progress, description: Description, keep: int) -> Path:
    """Saves from all processes together; returns the checkpoint's folder.

    Raises:
        CheckpointError: it cannot be written (a full disk, say); what was there before is intact.
    """
    final = run / FOLDER / f"step_{progress.step:08d}"
    partial = final.with_name(f".{final.name}.partial")
    ranks = cluster.find_ranks()
    main = ranks.rank == 0
    weights = engine.weights()
    about = {
        "version": VERSION,
        "step": progress.step,
        "position": progress.position,
        "num_ranks": ranks.num_ranks,
        "zero_stage": engine.zero_stage,
        "precision": engine.precision,
        "package_version": package_version(),
        "torch_version": torch.__version__,
        "settings": description.settings,
        "identity": description.identity,
    }

    def write_parts() -> None:
        save_tensors(randomness.states(), partial / f"random_rank_{ranks.rank:04d}.pt")
        if main:
            save_file(weights, partial / WEIGHTS)
            sync(partial / WEIGHTS)

    def write_shards() -> None:
        if failure := engine.write_shards(partial):
            raise failure

    together(final, lambda: make_empty(partial) if main else None)
    together(final, write_parts)
    together(final, write_shards)
    together(final, lambda: publish(partial, final, about, keep) if main else None)
    return final


def together(final: Path, write: Callable[[], object]) -> None:
    """Runs `write` on every process; if it fails on any, the unfinished checkpoint goes and all raise.

    Raises:
        CheckpointError: it failed.
    """
    failure = ""
    try:
        write()
    except (OSError, RuntimeError, SafetensorError) as error:
        failure = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    failures = [text for text in cluster.texts(failure) if text]
    if failures:
        if cluster.is_main():
            shutil.rmtree(final.with_name(f".{final.name}.partial"), ignore_errors=True)
        raise CheckpointError(
            f"cannot save {final} ({failures[0]}): make room there and resume; earlier checkpoints are intact"
        )


def make_empty(partial: Path) -> None:
    """Makes the folder for an unfinished checkpoint, and removes those that a killed run left."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    for leftover in partial.parent.glob(".step_*"):
        shutil.rmtree(leftover)
    partial.mkdir()


def publish(partial: Path, final: Path, about: dict[str, Any], keep: int) -> None:
    """Verifies that all files are there, renames the folder, points to it, and removes the oldest."""
    files = {str(path.relative_to(partial)): path.stat().st_size for path in partial.rglob("*") if path.is_file()}
    num_ranks, sharded = about["num_ranks"], about["zero_stage"] > 0
    for ending, count in (("model_states.pt", 1), ("optim_states.pt", num_ranks * sharded), ("", num_ranks + 2)):
        found = sum(name.endswith(ending) and size > 0 for name, size in files.items())
        if found < count:
            raise OSError(f"{found} of {count} files {ending} were written")
    with (partial / ABOUT).open("w", encoding="utf-8") as file:
        json.dump(about | {"files": files}, file, indent=2)
    for path in (partial / ABOUT, *{(partial / name).parent for name in files}, partial):
        sync(path)
    if final.exists():  # damaged, or the run would have gone on from it
        final.rename(final.with_name(f".{final.name}.replaced"))
    partial.rename(final)
    sync(final.parent)
    pointer = final.with_name(f".{LATEST}.partial")
    pointer.write_text(final.name + "\n", encoding="utf-8")
    sync(pointer)
    pointer.replace(final.with_name(LATEST))
    whole = [folder for folder in newest_first(final.parent.parent) if damage_of(folder) is None]
    for old in [*whole[max(keep, 1) :], *final.parent.glob(".step_*")]:
        shutil.rmtree(old)


def damage_of(folder: Path) -> str | None:
    """What is wrong with a checkpoint; None if it has all its files at their sizes."""
    try:
        files = read(folder)["files"]
    except CheckpointError as error:
        return str(error)
    for name, size in files.items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        if found != size:
            there = "is missing" if found is None else f"has {found} bytes instead of {size}"
            return f"{path} {there}"
    return None


def newest_first(run: Path) -> list[Path]:
    """All checkpoints of a run, damaged ones too."""
    folders = [folder for folder in (run / FOLDER).glob("step_*") if re.fullmatch(r"step_\d+", folder.name)]
    return sorted(folders, key=lambda folder: int(folder.name.removeprefix("step_")), reverse=True)


def newest(run: Path, tell: bool = True) -> Path | None:
    """The newest complete checkpoint of a run; the file `latest` may be older, where a kill came between.

    Newer ones that are damaged are named on the terminal, if `tell`; None where none is complete.
    """
    damages = []
    for folder in newest_first(run):
        damage = damage_of(folder)
        if damage is None:
            for one in damages if tell else ():
                sys.stderr.write(f"passed over: {one}; {folder.name} is used instead\n")
            return folder
        damages.append(damage)
    return None


def none_complete(run: Path, remedy: str) -> CheckpointError:
    """The error of a run without a complete checkpoint; says what is wrong with those that are there."""
    damages = [str(damage_of(folder)) for folder in newest_first(run)]
    why = f" ({'; '.join(damages)})" if damages else ""
    return CheckpointError(f"{run} has no complete checkpoint{why}: {remedy}")


def choose(run: Path, tell: bool = True) -> Path | None:
    """`newest` as rank 0 sees it, on every process: they must not go on from different steps."""
    found = newest(run, tell) if cluster.is_main() else None
    name = cluster.texts(found.name if found else "")[0]
    return run / FOLDER / name if name else None


def read(folder: Path) -> dict[str, Any]:
    """What a checkpoint says about itself.

    Raises:
        CheckpointError: there is none, or it was written by a newer version.
    """
    path = folder / ABOUT
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): give a run with a complete checkpoint") from error
    if not isinstance(about, dict) or about.get("version") != VERSION:
        raise CheckpointError(f"{path} is not of version {VERSION}: read it with the version that wrote it")
    return about


def load(engine: "Engine", folder: Path, description: Description) -> Progress:
    """Brings engine and random states to where a checkpoint was saved.

    Raises:
        CheckpointError: it is damaged, of another model, or of another number of processes or ZeRO stage.
    """
    about = read(folder)
    ranks = cluster.find_ranks()
    check_identity(folder, about["identity"], description.identity)
    here = {"num_ranks": ranks.num_ranks, "zero_stage": engine.zero_stage}
    for name, value in here.items():
        if about[name] != value:
            raise CheckpointError(
                f"{folder} was saved with {name} {about[name]}, not {value}: resume with {about[name]}"
            )
    try:
        engine.read_shards(folder)
        states = torch.load(folder / f"random_rank_{ranks.rank:04d}.pt", map_location="cpu", weights_only=True)
        randomness.restore(states)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{folder} holds something else than tensors: it is damaged, or not to be trusted"
        ) from error
    except (OSError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{folder} does not fit this model or is damaged ({reason}): check the settings"
        ) from error
    return Progress(about["step"], about["position"])


def check_identity(folder: Path, there: dict[str, Any], here: dict[str, Any]) -> None:
    """Compares what a checkpoint and this run say they are.

    Raises:
        CheckpointError: they differ; the first difference is named.
    """
    found, wanted = dict(flat(there)), dict(flat(json.loads(json.dumps(here))))
    for name in sorted(found.keys() | wanted.keys()):
        one, other = found.get(name, "not there"), wanted.get(name, "not there")
        if one != other:
            raise CheckpointError(
                f"{folder} is of another model: {name} is {one} there and {other} here; restore it or start a new run"
            )


def flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested dictionaries by dotted name."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def load_weights(run: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights (parameters and buffers by name, on the CPU) and self-description of a run's newest checkpoint.

    Args:
        run: folder of a run, or of one of its checkpoints.

    Raises:
        CheckpointError: there is no complete checkpoint, or its weights are damaged.
    """
    folder = run if (run / ABOUT).is_file() else newest(run)
    if folder is None:
        raise none_complete(run, "restore its files, or give the folder of a run that was trained")
    about = read(folder)
    try:
        return load_file(folder / WEIGHTS), about
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} cannot be read ({error}): use an older checkpoint") from error


def package_version() -> str:
    """Version of this package."""
    try:
        return metadata.version("worldmodel")
    except metadata.PackageNotFoundError:  # run from a checkout
        return "unknown"
