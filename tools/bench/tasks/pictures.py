"""Speed of pictures: files in order, and random clips with decoders kept open."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import numpy as np

from tools.bench.footage import Footage
from tools.bench.peers.all import contenders
from tools.bench.peers.contender import SIDE, Contender, Opener, Pictures
from tools.bench.race import Race, Work, cpu_seconds, fastest, take_turns
from tools.bench.settings import StreamsSettings

CLIP_FRAMES = 16
STRIDES = (1, 4)
# Frames by which the fastest form is found.
TRIAL_FRAMES = 128
# Bounds of the number of clips in one round.
MIN_CLIPS, MAX_CLIPS = 2, 64
Clips = list[range]


def in_order(footage: Sequence[Footage], settings: StreamsSettings) -> Iterator[Race]:
    """Opens every file, reads all of its frames in order, and closes it."""
    for file in footage:
        runners: dict[str, Work] = {}
        forms = {}
        for contender in contenders():
            trials = {form: partial(try_out, opener, file.path) for form, opener in contender.forms.items()}
            form, forms[contender.name] = fastest(trials)
            runners[contender.name] = partial(read_all, contender.forms[form], file.path, None)
        costs = take_turns(runners, settings.rounds, apart())
        yield Race("in_order", file.name, "frames", costs, forms)


def read_all(opener: Opener, path: Path, limit: int | None, _: int) -> Iterator[int]:
    """Reads a file in order, up to so many frames, a part at a time; tells the frames of each."""
    with closing(opener(path, SIDE)) as pictures:
        num_frames = min(pictures.num_frames(), limit or pictures.num_frames())
        for start in range(0, num_frames, CLIP_FRAMES):
            yield len(pictures.clip(range(start, min(start + CLIP_FRAMES, num_frames))))


def apart() -> set[str]:
    """Contenders that cannot take turns part by part."""
    return {contender.name for contender in contenders() if contender.works_ahead}


def try_out(opener: Opener, path: Path) -> int:
    """Reads the beginning of a file; returns the number of frames."""
    return sum(read_all(opener, path, TRIAL_FRAMES, 0))


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
                costs = take_turns(runners, settings.rounds, apart())
            yield Race(f"random, stride {stride}", file.name, "frames", costs, forms)


def draw(num_frames: int, stride: int, num_clips: int, seed: int) -> Clips:
    """Clips whose starts are uniform over the file."""
    last = num_frames - (CLIP_FRAMES - 1) * stride
    starts = np.random.default_rng(seed).integers(0, last, num_clips).tolist()
    return [range(start, start + CLIP_FRAMES * stride, stride) for start in starts]


def read_clips(pictures: Pictures, draws: Sequence[Clips], number: int) -> Iterator[int]:
    """Reads the clips of a round one by one; tells the frames of each."""
    for clip in draws[number]:
        yield len(pictures.clip(clip))


def open_fastest(
    entrants: Sequence[Contender], path: Path, stride: int, stack: ExitStack
) -> tuple[dict[str, Pictures], dict[str, str]]:
    """Opens a file with the fastest form of every contender, and tells which that is."""
    opened, chosen = {}, {}
    for contender in entrants:
        forms = {form: stack.enter_context(closing(opener(path, SIDE))) for form, opener in contender.forms.items()}
        num_frames = next(iter(forms.values())).num_frames()
        clips = draw(num_frames, stride, MIN_CLIPS, 1000)
        trials = {form: partial(read_whole, pictures, clips) for form, pictures in forms.items()}
        best, told = fastest(trials)
        opened[contender.name], chosen[contender.name] = forms[best], told
    return opened, chosen


def read_whole(pictures: Pictures, clips: Clips) -> int:
    """Reads all clips; returns the number of frames."""
    return sum(read_clips(pictures, [clips], 0))


def clips_within(seconds: float, pictures: Pictures, num_frames: int, stride: int) -> int:
    """How many clips these CPU-seconds suffice for."""
    begun = cpu_seconds()
    read_whole(pictures, draw(num_frames, stride, MIN_CLIPS, 1001))
    return int(np.clip(round(seconds * MIN_CLIPS / (cpu_seconds() - begun)), MIN_CLIPS, MAX_CLIPS))
