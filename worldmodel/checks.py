"""Settings that no run can have, refused before anything is read or written."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from streams.settings import LoaderSettings
from worldmodel.errors import SettingsError
from worldmodel.objective import WorldObjective
from worldmodel.settings import TokenizerSettings, TrainingSettings, TrainSettings
from worldmodel.training import cluster
from worldmodel.training.tensor_parallel import refuse_unfit


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
    if training.compile:
        raise SettingsError("training.compile is for the world model's transformers: a codec has none")
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
    """Refuse a family that there is not, or that is not made in this way, and a zoom that leaves nothing to cut out.

    Raises:
        SettingsError: names the family, or the zoom.
    """
    if settings.kind == "sound" and settings.family != "vq":
        raise SettingsError(f"family={settings.family} is of pictures: kind=sound has vq alone")
    if (settings.family != "dct") != trained:
        raise SettingsError(f"family={settings.family} is {'not ' if trained else ''}trained")
    if not 1 <= settings.zoom < math.inf:
        raise SettingsError(f"zoom={settings.zoom} is out of range: it must be 1 or more; 1 leaves pictures whole")
    if settings.zoom != 1 and (settings.kind == "sound" or not trained):
        without = "kind=sound" if settings.kind == "sound" else f"family={settings.family}"
        raise SettingsError(f"zoom={settings.zoom} is for training on pictures: leave it out with {without}")


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
