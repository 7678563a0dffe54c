"""Speed of pictures: files in order, and random clips with decoders kept open."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from tools.bench.footage import Footage
from tools.bench.peers.all import contenders
from tools.bench.peers.contender import SIDE, Contender, Opener, Pictures
from tools.bench.peers.remote import RemotePictures
from tools.bench.race import Part, Race, Work, fastest, seconds_of, take_turns
from tools.bench.settings import StreamsSettings

CLIP_FRAMES = 16
STRIDES = (1, 4)
# Frames by which the fastest form is found.
TRIAL_FRAMES = 128
# Bounds of the number of clips in one round.
MIN_CLIPS, MAX_CLIPS = 2, 64
TRIAL_CLIPS = 3
Clips = list[range]


def in_order(footage: Sequence[Footage], settings: StreamsSettings) -> Iterator[Race]:
    """Opens every file, reads all of its frames in order, and closes it."""
    for file in footage:
        runners: dict[str, Callable[[int], Work]] = {}
        forms = {}
        for contender in contenders():
            openers = openers_of(contender)
            trials = {form: partial(read_all, opener, file.path, TRIAL_FRAMES, 0) for form, opener in openers.items()}
            form, forms[contender.name] = fastest(trials)
            runners[contender.name] = partial(read_all, openers[form], file.path, None)
        yield Race("in_order", file.name, "frames", take_turns(runners, settings.rounds), forms)


def openers_of(contender: Contender) -> dict[str, Opener]:
    """The forms of a contender, in a process of its own if need be."""
    if not contender.restless:
        return contender.forms
    return {form: partial(RemotePictures, contender.name, form) for form in contender.forms}


def read_all(opener: Opener, path: Path, limit: int | None, _: int) -> Work:
    """Reads a file in order, up to so many frames, a part at a time; tells the frames of each."""
    with closing(opener(path, SIDE)) as pictures:
        num_frames = min(pictures.num_frames(), limit or pictures.num_frames())
        for start in range(0, num_frames, CLIP_FRAMES):
            yield frames_in(pictures.clip(range(start, min(start + CLIP_FRAMES, num_frames))))


def frames_in(clip: Tensor | Part) -> int | Part:
    """The number of frames, with their cost where it is known already."""
    return clip if isinstance(clip, Part) else len(clip)


def random_clips(footage: Sequence[Footage], settings: StreamsSettings) -> Iterator[Race]:
    """Reads clips at random places of a file that stays open; in each round all contenders read the same ones."""
    for file in footage:
        for stride in STRIDES:
            with ExitStack() as stack:
                open_files, forms = open_fastest(contenders(), file.path, stride, stack)
                num_frames = open_files["ours"].num_frames()
                num_clips = clips_within(settings.round_seconds, open_files["ours"], num_frames, stride)
                draws = [draw(num_frames, stride, num_clips, number) for number in range(settings.rounds)]
                runners = {name: partial(read_clips, pictures, draws) for name, pictures in open_files.items()}
                costs = take_turns(runners, settings.rounds)
            yield Race(f"random, stride {stride}", file.name, "frames", costs, forms)


def draw(num_frames: int, stride: int, num_clips: int, seed: int) -> Clips:
    """Clips whose starts are uniform over the file."""
    last = num_frames - (CLIP_FRAMES - 1) * stride
    starts = np.random.default_rng(seed).integers(0, last, num_clips).tolist()
    return [range(start, start + CLIP_FRAMES * stride, stride) for start in starts]


def read_clips(pictures: Pictures, draws: Sequence[Clips], number: int) -> Work:
    """Reads the clips of a round one by one; tells the frames of each."""
    for clip in draws[number]:
        yield frames_in(pictures.clip(clip))


def open_and_read(opener: Opener, path: Path, stride: int) -> Work:
    """Opens a file, and reads a few clips."""
    with closing(opener(path, SIDE)) as pictures:
        yield from read_clips(pictures, [draw(pictures.num_frames(), stride, TRIAL_CLIPS, 1000)], 0)


def open_fastest(
    entrants: Sequence[Contender], path: Path, stride: int, stack: ExitStack
) -> tuple[dict[str, Pictures], dict[str, str]]:
    """Opens a file with the fastest form of every contender, and tells which that is."""
    opened, chosen = {}, {}
    for contender in entrants:
        openers = openers_of(contender)
        trials = {form: partial(open_and_read, opener, path, stride) for form, opener in openers.items()}
        best, chosen[contender.name] = fastest(trials)
        opened[contender.name] = stack.enter_context(closing(openers[best](path, SIDE)))
        # What opening cost, and begins late, counts for nobody.
        seconds_of(read_clips(opened[contender.name], [[range(1)]], 0))
    return opened, chosen


def clips_within(seconds: float, pictures: Pictures, num_frames: int, stride: int) -> int:
    """How many clips these CPU-seconds suffice for."""
    spent = seconds_of(read_clips(pictures, [draw(num_frames, stride, TRIAL_CLIPS, 1001)], 0))
    return int(np.clip(round(seconds * TRIAL_CLIPS / spent), MIN_CLIPS, MAX_CLIPS))
