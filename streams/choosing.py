"""Which library reads a file: of those whose frames at random are the frames of a plain decode, the fastest."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from streams.errors import MediaError
from streams.index import FrameIndex
from streams.pyav.facts import SAMPLE_SIZE
from streams.reader import open_with
from streams.settings import Library

# Frames that are compared, spread over the file, and read in an order in which each needs a seek.
NUM_SAMPLES = 6
# Colour conversions and scalers differ by a grey level or two in the mean over a frame, and by the same amount from one
# frame to the next: a frame that is nearer to a neighbour by this much is the neighbour.
MAX_LEVELS, NEARER_LEVELS = 2.0, 0.05

Samples = Mapping[int, UInt8[np.ndarray, "3 height width"]]


@dataclass(frozen=True)
class Trial:
    """What one library did with a file.

    Attributes:
        library: its name.
        refusal: why it cannot be used; empty if it is right.
        cpu_seconds: what opening the file and reading the samples took.
    """

    library: Library
    refusal: str
    cpu_seconds: float


def places_to_read(num_frames: int) -> list[int]:
    """Places of the frames that a library must read, first and last among them."""
    return np.unique(np.linspace(0, num_frames - 1, NUM_SAMPLES).astype(int)).tolist()


def places_of_samples(num_frames: int) -> list[int]:
    """These and their neighbours."""
    near = {place + step for place in places_to_read(num_frames) for step in (-1, 0, 1)}
    return sorted(place for place in near if 0 <= place < num_frames)


def choose_reader(
    path: Path, index: FrameIndex, samples: Samples, libraries: tuple[Library, ...], may_fall_back: bool
) -> Trial:
    """The library that reads a file.

    Args:
        path: the video.
        index: its frames.
        samples: some of them by their ticks, decoded from the start of the file on, scaled, and upright.
        libraries: those to choose among.
        may_fall_back: take the first other one that is right where none of these is.

    Raises:
        MediaError: no library is right.
    """
    if len(libraries) > 1:
        # What importing a library costs is not to count.
        for library in libraries:
            with suppress(MediaError):
                open_with(library, path, index).close()
    trials = [attempt(path, index, samples, library) for library in libraries]
    right = [trial for trial in trials if not trial.refusal]
    if right:
        return min(right, key=lambda trial: trial.cpu_seconds)
    others: tuple[Library, ...] = ("pyav", "torchcodec", "decord")
    for library in others if may_fall_back else ():
        if library not in libraries and not (trial := attempt(path, index, samples, library)).refusal:
            return trial
    raise MediaError("; ".join(dict.fromkeys(trial.refusal for trial in trials)))


def attempt(path: Path, index: FrameIndex, samples: Samples, library: Library) -> Trial:
    """Reads frames with one library, each after a seek."""
    ticks = index.ticks.tolist()
    places = [place for place in places_to_read(len(ticks)) if ticks[place] in samples]
    # From the end, and then from both halves in turn: never the next one, never what was decoded in advance.
    shuffled = [places[number] for number in np.argsort(np.arange(len(places)) * 0.618 % 1)[::-1]]
    begun = time.process_time()
    try:
        with open_with(library, path, index, size=SAMPLE_SIZE) as reader:
            for place in shuffled:
                frame = reader.frames_at([place], SAMPLE_SIZE)[0].numpy()
                if not is_frame(frame, [samples.get(tick) for tick in ticks[max(0, place - 1) : place + 2]], place > 0):
                    seconds = reader.seconds[place]
                    refusal = f"{library} shows another frame at {seconds:.3f} s when it seeks than when it plays"
                    return Trial(library, refusal, time.process_time() - begun)
    except MediaError as error:
        return Trial(library, str(error).removeprefix(f"{path}: "), time.process_time() - begun)
    return Trial(library, "", time.process_time() - begun)


def is_frame(
    frame: UInt8[np.ndarray, "3 height width"],
    around: Sequence[UInt8[np.ndarray, "3 height width"] | None],
    has_previous: bool,
) -> bool:
    """Whether a frame is the one in the middle of those around it; the first has none before it."""
    away = [np.inf if other is None else float(np.abs(frame.astype(np.float32) - other).mean()) for other in around]
    own = away[1 if has_previous else 0]
    return own <= MAX_LEVELS and own <= min(away) + NEARER_LEVELS
