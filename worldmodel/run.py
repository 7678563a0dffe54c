"""The folder of a world model's run: its settings, its own copies of the codecs, its checkpoints."""

import dataclasses
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from streams.settings import LoaderSettings
from worldmodel.cache.latents import require_codec
from worldmodel.codecs.sound import SoundVQ
from worldmodel.codecs.store import DESCRIPTION, Codec, PictureCodec, copy_codec, load_codec
from worldmodel.config import read_settings, write_settings
from worldmodel.errors import CheckpointError, SettingsError
from worldmodel.model import WorldModel
from worldmodel.objective import WorldObjective
from worldmodel.settings import TokenizerSettings, TrainingSettings, TrainSettings
from worldmodel.training import checkpoint, cluster
from worldmodel.training.checkpoint import Description, load_weights
from worldmodel.training.tensor_parallel import refuse_unfit

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


@contextmanager
def settings_to_blame() -> Iterator[None]:
    """Sizes that do not fit each other are an error of the user's where they come from settings."""
    try:
        yield
    except ValueError as error:
        raise SettingsError(str(error)) from error


def check_training(training: TrainingSettings, loader: LoaderSettings, muon: bool = False) -> None:
    """Refuse numbers that no training can do, and muon where it is not for this objective.

    Raises:
        SettingsError: names the setting.
    """
    for name, value in (("training.steps", training.steps), ("loader.batch_size", loader.batch_size)):
        if value < 1:
            raise SettingsError(f"{name}={value} is out of range: it must be 1 or more")
    with settings_to_blame():
        refuse_unfit(training)
    check_batch(training, loader)
    if not muon:
        check_plain(training)
    if training.spike_factor > 0 and training.optimizer == "muon":
        raise SettingsError(
            f"training.spike_factor={training.spike_factor:g} is for adamw: all updates of muon have one size"
        )
    if 0 < training.spike_factor <= 1:
        raise SettingsError(
            f"training.spike_factor={training.spike_factor:g} would leave out half of all updates: "
            "it must be above 1, or 0 for none"
        )
    needed = {"none": 0, "optimizer": 1, "parameters": 3}[training.offload]
    if training.zero_stage < needed:
        raise SettingsError(
            f"training.offload={training.offload} with training.zero_stage={training.zero_stage}: "
            f"DeepSpeed offloads it from stage {needed} on"
        )
    for name in ("learning_rate", "muon_learning_rate"):
        if getattr(training, name) <= 0:
            raise SettingsError(f"training.{name}={getattr(training, name)} is out of range: it must be above 0")


def check_batch(training: TrainingSettings, loader: LoaderSettings) -> None:
    """Refuse a batch that does not divide among the processes, before the settings of a resumed run are replaced.

    Raises:
        SettingsError: says what would divide.
    """
    num_readers = max(1, cluster.data_ranks(max(1, training.num_sharing))[1])
    if training.accumulate < 1 or loader.batch_size % (num_readers * training.accumulate):
        groups = "processes" if training.num_sharing == 1 else "groups of processes that share clips"
        raise SettingsError(
            f"loader.batch_size={loader.batch_size} does not divide among the {num_readers} {groups} with "
            f"training.accumulate={training.accumulate}: give a multiple of both"
        )


def check_plain(training: TrainingSettings) -> None:
    """Refuse what a codec cannot do.

    Raises:
        SettingsError: names the setting.
    """
    if training.optimizer == "muon":
        raise SettingsError("training.optimizer=muon is for the world model's transformers: a codec needs adamw")
    if training.recompute_activations:
        raise SettingsError("training.recompute_activations is for the world model's transformers: a codec has none")
    if training.sequence_parallel != 1:
        raise SettingsError(
            f"training.sequence_parallel={training.sequence_parallel} is for the world model's trunk: a codec needs 1"
        )
    if training.tensor_parallel != 1:
        raise SettingsError(
            f"training.tensor_parallel={training.tensor_parallel} is for the world model's transformers: a codec needs "
            "1"
        )


def check_tensor_parallel(training: TrainingSettings, objective: WorldObjective) -> None:
    """Refuse groups of processes among which matrices do not divide, and what does not go together with them.

    Raises:
        SettingsError: names the setting.
    """
    size, num_ranks = training.tensor_parallel, cluster.find_ranks().num_ranks
    if num_ranks % size:
        raise SettingsError(f"training.tensor_parallel={size} does not divide the {num_ranks} processes: change one")
    with settings_to_blame():
        objective.check_cut(size)


def check_sequence_parallel(settings: TrainSettings) -> None:
    """Refuse groups of processes among which a clip does not divide.

    Raises:
        SettingsError: names what does not divide.
    """
    size, num_ranks = settings.training.sequence_parallel, cluster.find_ranks().num_ranks
    with settings_to_blame():
        model = settings.model.sized()
    named = f"training.sequence_parallel={size}"
    if size < 1:
        raise SettingsError(f"{named} is out of range: it must be 1 or more")
    for count, what in (
        (num_ranks, f"the {num_ranks} processes"),
        (model.trunk.num_heads, f"model.trunk.num_heads={model.trunk.num_heads}"),
        (settings.num_frames, f"num_frames={settings.num_frames}"),
    ):
        if count % size:
            raise SettingsError(f"{named} does not divide {what}: change one of them")
    drawn = min(model.decoded_frames or settings.num_frames, settings.num_frames - 1)
    if drawn < size:
        raise SettingsError(
            f"{named} with model.decoded_frames={model.decoded_frames} and num_frames={settings.num_frames}: every "
            f"process of a group decodes a frame, so give {size} of them at least"
        )


def check_shares(settings: TrainSettings) -> None:
    """Refuse shares that are none.

    Raises:
        SettingsError: names the setting.
    """
    model, heads = settings.model, settings.heads
    shares = {
        "model.own_context": model.own_context,
        "model.own_context_from": model.own_context_from,
        "model.context_noise": model.context_noise,
        "model.drop_past": model.drop_past,
        "heads.view_share": heads.view_share,
        "heads.mismatched_share": heads.mismatched_share,
    }
    for name, value in shares.items():
        least = 0.0 if name.startswith("model.") else 1e-9  # a head without views is switched off by its weight
        if not least <= value <= 1:
            expected = "from 0 to 1" if least == 0 else "above 0 and at most 1"
            raise SettingsError(f"{name}={value} is out of range: it must be {expected}")


def check_videos(videos: str | dict[str, float] | None) -> None:
    """Refuse a mixture of videos without a share for each.

    Raises:
        SettingsError: names the videos and the weight.
    """
    if isinstance(videos, dict) and not videos:
        raise SettingsError("videos is empty: give a folder, or several with a weight for each")
    for address, weight in videos.items() if isinstance(videos, dict) else ():
        if not 0 < weight < math.inf:
            raise SettingsError(
                f"the weight {weight:g} of videos {address} is out of range: it must be above 0; leave them out"
            )


def check_family(settings: TokenizerSettings, trained: bool) -> None:
    """Refuse a family that there is not, or that is not made in this way.

    Raises:
        SettingsError: names the family.
    """
    if settings.kind == "sound" and settings.family != "vq":
        raise SettingsError(f"family={settings.family} is of pictures: kind=sound has vq alone")
    if (settings.family != "dct") != trained:
        raise SettingsError(f"family={settings.family} is {'not ' if trained else ''}trained")


def check_data(settings: TrainSettings) -> None:
    """Refuse settings that name no source of codes, or two, or clips that cannot be encoded.

    Raises:
        SettingsError: names the setting.
    """
    if (settings.cache is None) == (settings.videos is None):
        given = "neither" if settings.cache is None else f"cache={settings.cache} and videos={settings.videos}"
        raise SettingsError(
            f"codes come from a cache or from videos, but {given} was given: give --cache CACHE or --videos VIDEOS, "
            "and null for the other where a file states it"
        )
    check_videos(settings.videos)
    for name, least in (("clip_frames", 2), ("thumbnail", 1), ("chunk_clips", 1)):
        value = getattr(settings.encoding, name)
        if value < least:
            raise SettingsError(f"encoding.{name}={value} is out of range: it must be {least} or more")


def check_window(settings: TrainSettings) -> None:
    """Refuse windows in which a head sees no frame: it leaves out the first two, and hurried views have half as many.

    Raises:
        SettingsError: says how many frames are needed.
    """
    for head, least in (("speed", 6), ("arrow_of_time", 3), ("correspondence", 3)):
        if getattr(settings.heads, head) > 0 and settings.num_frames < least:
            raise SettingsError(
                f"num_frames={settings.num_frames} is too short for the head {head}: give {least} or more, or set "
                f"heads.{head} to 0"
            )


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


def load_run(run: Path | str, device: str = "cpu") -> LoadedRun:
    """The newest checkpoint of a run.

    Raises:
        CheckpointError: there is no run, no complete checkpoint, or its weights are of another model.
    """
    run = Path(run)
    if (run / DESCRIPTION).is_file():
        raise CheckpointError(f"{run} is the run of a codec: give a folder that `worldmodel train` made")
    if not (run / SETTINGS).is_file():
        raise CheckpointError(f"{run} is not a run ({SETTINGS} is missing): give a folder that `worldmodel train` made")
    settings = read_settings(TrainSettings, run / SETTINGS)
    weights, about = load_weights(run)
    picture, sound = load_codecs(sorted((run / CODECS).glob("*")))
    objective = build_objective(settings, picture, sound)
    try:
        objective.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"the weights in {run} are of another model than its {SETTINGS} ({reason})") from error
    objective.eval().requires_grad_(False).to(device)
    picture.to(device)
    if sound is not None:
        sound.to(device)
    return LoadedRun(settings, objective, picture, sound, int(about["step"]))


def _in_order(sources: list[Path], picture: PictureCodec, sound: SoundVQ | None) -> list[Path]:
    kinds = {load_codec(source).kind: source for source in sources}
    return [kinds[codec.kind] for codec in (picture, sound) if codec is not None]
