"""Speed of clips with their sound, at random places, decoders kept open."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from streams.settings import ClipSettings
from streams.videos import VideoSource
from tools.bench.footage import RATE, Footage
from tools.bench.peers.all import contenders
from tools.bench.peers.contender import SIDE, Pictures
from tools.bench.race import Race, Work, seconds_of, take_turns
from tools.bench.settings import StreamsSettings
from tools.bench.tasks.pictures import CLIP_FRAMES, MAX_CLIPS, MIN_CLIPS, open_fastest

SAMPLE_HZ = 16000
# Reads the clips of a round, given those of all rounds.
Reader = Callable[[Sequence[Sequence[int]], int], Work]


def clips_with_sound(footage: Sequence[Footage], settings: StreamsSettings) -> Iterator[Race]:
    """Reads the same clips of our source and of TorchCodec, each with 16 kHz mono sound of its interval."""
    clips = ClipSettings(
        frames_per_second=float(RATE), height=SIDE, width=SIDE, num_frames=CLIP_FRAMES, sample_hz=SAMPLE_HZ
    )
    for file in footage:
        with ExitStack() as stack:
            source = stack.enter_context(closing(VideoSource([file.path], clips)))
            readers: dict[str, Reader] = {"ours": partial(read_ours, source)}
            forms = {"ours": "VideoSource"}
            for peer in contenders("torchcodec"):
                pictures, chosen = open_fastest([peer], file.path, 1, stack)
                sound = import_module(f"tools.bench.peers.{peer.name}").Sound(file.path, SAMPLE_HZ)
                starts = [clip.start for clip in source.clips]
                readers[peer.name] = partial(read_peer, pictures[peer.name], sound, starts)
                forms |= chosen
            draws = draw_numbers(readers["ours"], len(source), settings)
            runners = {name: partial(read, draws) for name, read in readers.items()}
            costs = take_turns(runners, settings.rounds)
        yield Race("with_sound", file.name, "frames", costs, forms)


def draw_numbers(read: Reader, num_clips: int, settings: StreamsSettings) -> list[list[int]]:
    """Random clips for every round, as many as take its time."""
    seconds_of(read([[0, num_clips // 2]], 0))
    per_clip = seconds_of(read([[num_clips // 3, num_clips - 1]], 0)) / 2
    size = int(np.clip(round(settings.round_seconds / per_clip), MIN_CLIPS, MAX_CLIPS))
    return [np.random.default_rng(number).integers(0, num_clips, size).tolist() for number in range(settings.rounds)]


def read_ours(source: VideoSource, draws: Sequence[Sequence[int]], number: int) -> Work:
    """Reads the clips of a round of our source; tells the frames of each."""
    generator = np.random.default_rng(0)
    for clip in draws[number]:
        yield len(source.read(clip, generator).frames)


def read_peer(
    pictures: Pictures, sound: Any, starts: Sequence[int], draws: Sequence[Sequence[int]], number: int
) -> Work:
    """Reads the same clips of a peer; tells the frames of each."""
    for clip in draws[number]:
        frames = pictures.clip(range(starts[clip], starts[clip] + CLIP_FRAMES))
        sound.between(starts[clip] / RATE, (starts[clip] + CLIP_FRAMES) / RATE)
        yield len(frames)
