"""Checkpoints that describe themselves and are complete or absent.

RUN/checkpoints/step_00000300/ holds `checkpoint.json`, `weights.safetensors`, and of every process its random states
and its share of the optimizer's state, all by the names of parameters: so any number of processes goes on from it, in
any ZeRO stage. It is written under another name beside, verified, and renamed; RUN/checkpoints/latest names the newest.
Nothing in it is unpickled. `checkpoint.json` has a checksum of every file.
"""

import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from worldmodel.errors import CheckpointError
from worldmodel.training import cluster, randomness
from worldmodel.training.durable import checksum, save_tensors, sync

if TYPE_CHECKING:
    from worldmodel.training.engine import Engine

VERSION = 2
FOLDER, LATEST = "checkpoints", "latest"
ABOUT, WEIGHTS = "checkpoint.json", "weights.safetensors"
OPTIMIZER, RANDOM = "optimizer_{:04d}.safetensors", "random_{:04d}.safetensors"
NUM_READERS = 8  # threads that read files to check them


@dataclass(frozen=True)
class Description:
    """What a checkpoint says about its model, as JSON values.

    Attributes:
        settings: resolved settings of the run, whole.
        identity: what a resumed run must share with it: settings of model and codecs, fingerprints of codecs.
        data: `address` of what it is trained on, and `content`, a digest on which the order of the samples depends.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        step: updates done.
        position: samples that the loader has given out, over all processes.
        num_skipped: updates that were left out as spikes.
        recent: loss and gradient norm of the latest updates, where spikes are looked for.
    """

    step: int = 0
    position: int = 0
    num_skipped: int = 0
    recent: tuple[tuple[float, float], ...] = ()


def save(engine: "Engine", run: Path, progress: Progress, description: Description, keep: int) -> Path:
    """Saves from all processes together; returns the checkpoint's folder.

    Raises:
        CheckpointError: it cannot be written (a full disk, say); what was there before is intact.
    """
    final = run / FOLDER / f"step_{progress.step:08d}"
    partial = final.with_name(f".{final.name}.partial")
    ranks = cluster.find_ranks()
    main = ranks.rank == 0
    tensors = {RANDOM.format(ranks.rank): randomness.states(), WEIGHTS: engine.weights()}
    if not main:
        del tensors[WEIGHTS]
    tensors[OPTIMIZER.format(ranks.rank)] = engine.optimizer_state()
    about = {
        "version": VERSION,
        **dataclasses.asdict(progress),
        "num_updates": engine.num_updates,
        "num_ranks": ranks.num_ranks,
        "zero_stage": engine.zero_stage,
        "sequence_parallel": engine.sequence_parallel,
        "tensor_parallel": engine.tensor_parallel,
        "precision": engine.precision,
        "package_version": package_version(),
        "torch_version": torch.__version__,
        "settings": description.settings,
        "identity": description.identity,
        "data": description.data,
    }
    files: dict[str, dict[str, Any]] = {}

    def write_parts() -> None:
        for name, state in tensors.items():
            found = save_tensors(state, partial / name)
            files[name] = {"bytes": (partial / name).stat().st_size, "sha256": found}

    together(final, lambda: make_empty(partial) if main else None)
    together(final, write_parts)
    for text in cluster.texts(json.dumps(files)):
        files |= json.loads(text)
    together(final, lambda: publish(partial, final, about | {"files": files}, keep) if main else None)
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
    remove_unfinished(partial.parent)
    partial.mkdir()
    sync(partial.parent.parent)  # where the folder of checkpoints may be new


def publish(partial: Path, final: Path, about: dict[str, Any], keep: int) -> None:
    """Describes the folder, looks whether all processes' files are seen here, renames it, and removes the oldest."""
    with (partial / ABOUT).open("w", encoding="utf-8") as file:
        json.dump(about, file, indent=2)
    for path in (partial / ABOUT, partial):
        sync(path)
    if damage := damage_of(partial):
        raise OSError(damage)
    if final.exists():  # damaged, or the run would have gone on from it
        final.rename(final.with_name(f".{final.name}.replaced"))
    partial.rename(final)
    sync(final.parent)
    pointer = final.with_name(f".{LATEST}.partial")
    pointer.write_text(final.name + "\n", encoding="utf-8")
    sync(pointer)
    pointer.replace(final.with_name(LATEST))
    sync(final.parent)  # before the one that it named goes
    prune(final.parent.parent, keep)


def prune(run: Path, keep: int) -> None:
    """Deletes the checkpoints that are older than the newest `keep` whole ones, and what killed runs left.

    Damaged ones that are not as old stay: someone may restore them. Each is renamed before it is deleted, so that a
    kill in between leaves no part of a checkpoint under its name.
    """
    folders = newest_first(run)
    whole = [folder for folder in folders if damage_of(folder) is None]
    kept = whole[: max(keep, 1)]
    for old in folders[folders.index(kept[-1]) + 1 :]:
        old.rename(old.with_name(f".{old.name}.old"))
    remove_unfinished(run / FOLDER)


def remove_unfinished(folder: Path) -> None:
    """Removes what a killed run has half written, half replaced or half deleted."""
    for leftover in folder.glob(".step_*"):
        shutil.rmtree(leftover)


def damage_of(folder: Path, read_through: Collection[str] | None = ()) -> str | None:
    """What is wrong with a checkpoint; None if it has all its files at their sizes.

    Args:
        folder: of the checkpoint.
        read_through: names of files whose checksums are compared too; all files if None.
    """
    try:
        files = read(folder)["files"]
    except CheckpointError as error:
        return str(error)
    for name, about in files.items():
        path, size = folder / name, about["bytes"]
        found = path.stat().st_size if path.is_file() else None
        if found != size:
            there = "is missing" if found is None else f"has {found} bytes instead of {size}"
            return f"{path} {there}"
    names = [name for name in files if read_through is None or name in read_through]
    with ThreadPoolExecutor(NUM_READERS) as readers:
        for name, found in zip(names, readers.map(lambda name: checksum_of(folder / name), names), strict=True):
            if found != files[name]["sha256"]:
                return f"{folder / name} is not as it was written (its checksum differs)"
    return None


def checksum_of(path: Path) -> str:
    """A file's checksum; where it cannot be read, the reason, which is none."""
    try:
        return checksum(path)
    except OSError as error:
        return str(error)


def newest_first(run: Path) -> list[Path]:
    """All checkpoints of a run, damaged ones too."""
    folders = [folder for folder in (run / FOLDER).glob("step_*") if re.fullmatch(r"step_\d+", folder.name)]
    return sorted(folders, key=lambda folder: int(folder.name.removeprefix("step_")), reverse=True)


def newest(run: Path, tell: bool = True, read_through: Collection[str] | None = ()) -> Path | None:
    """The newest complete checkpoint of a run; the file `latest` may be older, where a kill came between.

    Newer ones that are damaged (as `damage_of` finds) are named on the terminal, if `tell`; None where none is whole.
    """
    damages = []
    for folder in newest_first(run):
        damage = damage_of(folder, read_through)
        if damage is None:
            for one in damages if tell else ():
                sys.stderr.write(f"passed over: {one}; {folder.name} is used instead\n")
            return folder
        damages.append(damage)
    return None


def none_complete(run: Path, remedy: str) -> CheckpointError:
    """The error of a run without a complete checkpoint; says what is wrong with those that are there."""
    damages = [str(damage_of(folder, None)) for folder in newest_first(run)]
    why = f" ({'; '.join(damages)})" if damages else ""
    return CheckpointError(f"{run} has no complete checkpoint{why}: {remedy}")


def choose(run: Path, read_through: Collection[str] | None = None, tell: bool = True) -> Path | None:
    """`newest` as rank 0 sees it, on every process: they must not go on from different steps."""
    found = newest(run, tell, read_through) if cluster.is_main() else None
    name = cluster.texts(found.name if found else "")[0]
    return run / FOLDER / name if name else None


def read(folder: Path) -> dict[str, Any]:
    """What a checkpoint says about itself.

    Raises:
        CheckpointError: there is none, or its form is of another version.
    """
    path = folder / ABOUT
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): give a run with a complete checkpoint") from error
    version = about.get("version") if isinstance(about, dict) else None
    if version != VERSION:
        raise CheckpointError(
            f"{path} is not of version {VERSION} but {version}: go on with the worldmodel that wrote it, or start anew"
        )
    return about


def load_objective(objective: nn.Module, folder: Path, description: Description) -> None:
    """Brings an objective that has no engine yet to where a checkpoint was saved.

    Raises:
        CheckpointError: the checkpoint is damaged or of another model.
    """
    about = read(folder)
    check_identity(folder, about["identity"], description.identity)
    check_data(folder, about.get("data") or {}, description.data)
    with fitting(folder):
        objective.load_state_dict(load_file(folder / WEIGHTS))


def load(engine: "Engine", folder: Path, seed: int) -> Progress:
    """Brings engine and random states to where a checkpoint was saved, by any number of processes in any ZeRO stage.

    A process that was there goes on with its random states; a new one draws from the seed, its rank and the step. Those
    that share clips are one here.

    Raises:
        CheckpointError: it is damaged or of another model.
    """
    about, reader = read(folder), cluster.data_ranks(engine.sequence_parallel * engine.tensor_parallel)[0]
    # The first of those that shared the clips of this reader.
    same = reader * about.get("sequence_parallel", 1) * about.get("tensor_parallel", 1)
    with fitting(folder):
        engine.begin_optimizer(about["num_updates"], optimizer_tensors(folder, about["num_ranks"]))
        if same < about["num_ranks"]:
            randomness.restore(load_file(folder / RANDOM.format(same)))
        else:
            randomness.seed(seed, reader, about["step"])
    recent = tuple((loss, norm) for loss, norm in about["recent"])
    return Progress(about["step"], about["position"], about["num_skipped"], recent)


def optimizer_tensors(folder: Path, num_ranks: int) -> Iterator[tuple[str, Tensor]]:
    """The optimizer's state that all processes saved, one tensor in memory at a time."""
    for rank in range(num_ranks):
        with safe_open(folder / OPTIMIZER.format(rank), "pt") as file:
            yield from ((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118 (no dictionary)


@contextmanager
def fitting(folder: Path) -> Iterator[None]:
    """Names the checkpoint in what does not fit.

    Raises:
        CheckpointError: something does not.
    """
    try:
        yield
    except (OSError, RuntimeError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{folder} does not fit this model or is damaged ({reason}): check the settings"
        ) from error


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


def check_data(folder: Path, there: dict[str, str], here: dict[str, str]) -> None:
    """Refuses data that have changed since under the same address: samples would be left out, or come twice.

    Data at another address were asked for; that is told.

    Raises:
        CheckpointError: they have changed.
    """
    if not there or not here or there["content"] == here["content"]:
        return
    if there["address"] == here["address"]:
        raise CheckpointError(
            f"{folder}: what is at {here['address']} has changed since, so the run cannot go on where it was: restore "
            "it, or name other data to go on with"
        )
    if cluster.is_main():
        sys.stderr.write(f"goes on with other data, from {there['address']} to {here['address']}\n")


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
    folder = run if (run / ABOUT).is_file() else newest(run, read_through=(WEIGHTS,))
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
