"""The folder of a world model's run: its settings, its own copies of the codecs, its checkpoints."""

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from worldmodel.cache.latents import require_codec
from worldmodel.checks import (
    check_data,
    check_sequence_parallel,
    check_shares,
    check_tensor_parallel,
    check_training,
    check_window,
    settings_to_blame,
)
from worldmodel.codecs.sound import SoundVQ
from worldmodel.codecs.store import DESCRIPTION, Codec, PictureCodec, copy_codec, load_codec
from worldmodel.config import read_settings, write_settings
from worldmodel.errors import CheckpointError, SettingsError
from worldmodel.light_weights import lighten
from worldmodel.model import WorldModel
from worldmodel.objective import WorldObjective
from worldmodel.settings import TrainSettings, Weights
from worldmodel.training import checkpoint, cluster
from worldmodel.training.checkpoint import Description, load_weights

SETTINGS, CODECS = "settings.yaml", "codec"


@dataclass(frozen=True)
class LoadedRun:
    """A trained world model with its codecs, ready to roll out."""

    settings: TrainSettings
    objective: WorldObjective
    picture: PictureCodec
    sound: SoundVQ | None
    step: int

    @property
    def model(self) -> WorldModel:
        """The world model without its heads."""
        return self.objective.model

    @property
    def fingerprint(self) -> str:
        """What tells these codecs from all others."""
        return "-".join(str(codec.fingerprint) for codec in (self.picture, self.sound) if codec is not None)


def load_codecs(runs: list[Path]) -> tuple[PictureCodec, SoundVQ | None]:
    """One picture codec and at most one sound codec.

    Raises:
        SettingsError: there is none for pictures, or more than one of a kind.
    """
    codecs: dict[str, Codec] = {}
    for run in runs:
        codec = load_codec(run)
        if codec.kind in codecs:
            raise SettingsError(
                f"{run} is a second {codec.kind} codec: give one for pictures and at most one for sound"
            )
        codecs[codec.kind] = codec
    picture, sound = codecs.get("picture"), codecs.get("sound")
    if not isinstance(picture, PictureCodec):
        raise SettingsError(
            f"no picture codec among {[str(run) for run in runs]}: give a run of `worldmodel tokenizer`"
        )
    return picture, sound if isinstance(sound, SoundVQ) else None


def check_beginning(run: Path, resume: bool, description: Description) -> None:
    """Refuse to begin or resume a run before anything in its folder is changed.

    Raises:
        CheckpointError: it is to be resumed and cannot be, or has checkpoints of its own.
    """
    found = checkpoint.choose(run, read_through=(), tell=False)  # the loop reads them, and tells
    if resume and found is None:
        raise checkpoint.none_complete(run, "restore its files, or start a new run in another folder")
    if found is not None and not resume:
        raise CheckpointError(f"{run} already has checkpoints: resume it, or choose another folder")
    if found is not None:
        checkpoint.check_identity(found, checkpoint.read(found)["identity"], description.identity)


@dataclass(frozen=True)
class Prepared:
    """A run that is not begun: nothing of it is written.

    Attributes:
        objective: untrained.
        picture: codec of pictures.
        sound: codec of sound, if there is one.
        sources: folders of the codecs.
    """

    objective: WorldObjective
    picture: PictureCodec
    sound: SoundVQ | None
    sources: list[Path]


def prepare_run(settings: TrainSettings) -> Prepared:
    """Check the settings of a run and build what is trained.

    Raises:
        CacheError: the cache was not made with these codecs.
        SettingsError: names the setting that is wrong.
    """
    check_data(settings)
    copies = Path(settings.run) / CODECS
    sources = sorted(copies.glob("*")) if copies.is_dir() else [Path(codec) for codec in settings.codecs]
    picture, sound = load_codecs(sources)
    if settings.cache is not None:
        require_codec(settings.cache, {c.kind: str(c.fingerprint) for c in (picture, sound) if c is not None})
    check_training(settings.training, settings.loader, muon=True)
    check_window(settings)
    check_sequence_parallel(settings)
    check_shares(settings)
    with settings_to_blame():
        objective = build_objective(settings, picture, sound)
    check_tensor_parallel(settings.training, objective)
    return Prepared(objective, picture, sound, sources)


def begin_run(settings: TrainSettings, resume: bool = False) -> tuple[WorldObjective, PictureCodec, SoundVQ | None]:
    """Build an untrained objective and make the run complete by itself: settings and copies of its codecs.

    Raises:
        CacheError: the cache was not made with these codecs.
        CheckpointError: the run has checkpoints already, is of another model, or cannot be written.
        SettingsError: names the setting that is wrong.
    """
    made, run = prepare_run(settings), Path(settings.run)
    check_beginning(run, resume, describe_run(settings, made.picture, made.sound))
    write_together(run, lambda: _write_run(settings, made.sources, made.picture, made.sound))
    return made.objective, made.picture, made.sound


def write_together(run: Path, write: Callable[[], object]) -> None:
    """Process 0 writes what a run begins with; then all processes go on, or none does.

    Raises:
        CheckpointError: it cannot be written (a full disk, say).
    """
    failure = ""
    if cluster.is_main():
        try:
            write()
        except OSError as error:
            failure = f"{run} cannot be written ({error.strerror}): make room there, or give another folder"
    if failure := cluster.texts(failure)[0]:
        raise CheckpointError(failure)


def _write_run(settings: TrainSettings, sources: list[Path], picture: PictureCodec, sound: SoundVQ | None) -> None:
    run = Path(settings.run)
    copies = run / CODECS
    if not copies.is_dir():
        partial = run / f".{CODECS}.partial"
        try:
            for codec, source in zip((picture, sound), _in_order(sources, picture, sound), strict=False):
                if codec is not None:
                    copy_codec(source, partial / codec.kind)
            partial.rename(copies)  # all of them, or a run that was killed here would begin again without the sound
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    write_settings(settings, run / SETTINGS)


def build_objective(settings: TrainSettings, picture: PictureCodec, sound: SoundVQ | None) -> WorldObjective:
    """The untrained objective of a run."""
    torch.manual_seed(settings.training.seed)
    model = WorldModel(settings.model, picture.quantizer, None if sound is None else sound.quantizer)
    return WorldObjective(model, settings.heads)


def describe_run(settings: TrainSettings, picture: PictureCodec, sound: SoundVQ | None) -> Description:
    """What a checkpoint of this run says about itself, and what a resumed run must share with it."""
    fingerprints = {codec.kind: codec.fingerprint for codec in (picture, sound) if codec is not None}
    whole = dataclasses.asdict(settings)
    identity = {"model": whole["model"], "codecs": fingerprints, "optimizer": settings.training.optimizer}
    return Description(settings=whole, identity=identity)


def load_run(run: Path | str, device: str = "cpu", weights: Weights = "fp32") -> LoadedRun:
    """The newest checkpoint of a run, with the matrices of its blocks in so many bits.

    Raises:
        CheckpointError: there is no run, no complete checkpoint, or its weights are of another model.
    """
    run = Path(run)
    if (run / DESCRIPTION).is_file():
        raise CheckpointError(f"{run} is the run of a codec: give a folder that `worldmodel train` made")
    if not (run / SETTINGS).is_file():
        raise CheckpointError(f"{run} is not a run ({SETTINGS} is missing): give a folder that `worldmodel train` made")
    settings = read_settings(TrainSettings, run / SETTINGS)
    trained, about = load_weights(run)
    picture, sound = load_codecs(sorted((run / CODECS).glob("*")))
    objective = build_objective(settings, picture, sound)
    try:
        objective.load_state_dict(trained)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"the weights in {run} are of another model than its {SETTINGS} ({reason})") from error
    lighten(objective.blocks, weights)
    objective.eval().requires_grad_(False).to(device)
    picture.to(device)
    if sound is not None:
        sound.to(device)
    return LoadedRun(settings, objective, picture, sound, int(about["step"]))


def _in_order(sources: list[Path], picture: PictureCodec, sound: SoundVQ | None) -> list[Path]:
    kinds = {load_codec(source).kind: source for source in sources}
    return [kinds[codec.kind] for codec in (picture, sound) if codec is not None]
