"""Which library reads a file: of those whose frames at random are the frames of a plain decode, the fastest."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from streams.errors import MediaError
from streams.index import FrameIndex
from streams.reader import open_with
from streams.settings import Library

# Frames that are compared, spread over the file, and read in an order in which each needs a seek.
NUM_SAMPLES = 6
# Colour conversions and scalers differ by a grey level or two in the mean over a frame, another frame by more.
MAX_LEVELS = 2.0

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


def places_of_samples(num_frames: int) -> list[int]:
    """Places of the frames to compare, first and last among them."""
    return np.unique(np.linspace(0, num_frames - 1, NUM_SAMPLES).astype(int)).tolist()


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
    """Reads the samples with one library, each after a seek."""
    known = [(place, samples[ticks]) for place, ticks in enumerate(index.ticks.tolist()) if ticks in samples]
    # From the end, and then from both halves in turn: never the next one, never what was decoded in advance.
    shuffled = [known[place] for place in np.argsort(np.arange(len(known)) * 0.618 % 1)[::-1]]
    begun = time.process_time()
    try:
        with open_with(library, path, index) as reader:
            for place, expected in shuffled:
                height, width = expected.shape[1:]
                read = reader.frames_at([place], (height, width))[0].numpy()
                away = float(np.abs(read.astype(np.float32) - expected).mean())
                if away > MAX_LEVELS:
                    seconds = reader.seconds[place]
                    refusal = f"{library} shows another frame at {seconds:.3f} s when it seeks than when it plays"
                    return Trial(library, refusal, time.process_time() - begun)
    except MediaError as error:
        return Trial(library, str(error).removeprefix(f"{path}: "), time.process_time() - begun)
    return Trial(library, "", time.process_time() - begun)
