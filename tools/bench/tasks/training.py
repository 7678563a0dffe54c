"""Speed of the training stream: our shuffled loader against TorchCodec's random clips, both on one long video."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from streams.loader import Loader
from streams.settings import ClipSettings, LoaderSettings
from streams.videos import VideoSource
from tools.bench.ffmpeg import ffmpeg
from tools.bench.footage import RATE, Footage
from tools.bench.peers.all import contenders
from tools.bench.peers.contender import SIDE
from tools.bench.race import Race, Work, seconds_of, take_turns
from tools.bench.settings import StreamsSettings
from tools.bench.tasks.pictures import CLIP_FRAMES, STRIDES, clips_within, draw, open_fastest, read_clips

# The order keeps this many times its turns clips open; the video must be much longer than all of them.
BATCH = 2
REPEATS = 40


def training_stream(footage: Sequence[Footage], settings: StreamsSettings) -> Iterator[Race]:
    """Batches of our loader over the file, repeated to a long video without sound, read in this process."""
    for file in footage:
        with long_video(file.silent, 1 if settings.quick else REPEATS) as path:
            for stride in STRIDES:
                costs, forms = measure(path, stride, settings)
                yield Race(f"training, stride {stride}", file.name, "frames", costs, forms)


@contextmanager
def long_video(path: Path, repeats: int) -> Iterator[Path]:
    """A file's pictures and sound as often one after the other, while one needs it."""
    with TemporaryDirectory(dir=path.parent) as folder:
        long = Path(folder) / path.name
        ffmpeg("-stream_loop", str(repeats - 1), "-i", path, "-c", "copy", long)
        yield long


def measure(path: Path, stride: int, settings: StreamsSettings) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Costs and forms on one file."""
    peers = contenders("torchcodec")
    with ExitStack() as stack:
        loader, num_batches = make_loader(path, stride)
        stack.callback(loader.close)
        open_files, forms = open_fastest(peers + contenders("ours"), path, stride, stack)
        num_frames = open_files["ours"].num_frames()
        num_clips = clips_within(settings.round_seconds, open_files["ours"], num_frames, stride)
        draws = [draw(num_frames, stride, num_clips, number) for number in range(settings.rounds)]
        runners = {peer.name: partial(read_clips, open_files[peer.name], draws) for peer in peers}
        seconds_of(read_batches(loader, num_batches, 0))
        costs = take_turns({"ours": partial(read_batches, loader, num_batches), **runners}, settings.rounds)
    return costs, {**forms, "ours": "Loader over VideoSource"}


def make_loader(path: Path, stride: int) -> tuple[Loader, int]:
    """Our loader over one file, without workers, and the batches in which every open block is read once.

    Clips of a block come apart in the order, and are read at the first of them: fewer batches would see more or less
    than their share of reading.
    """
    clips = ClipSettings(frames_per_second=RATE / stride, height=SIDE, width=SIDE, num_frames=CLIP_FRAMES)
    source = VideoSource([path], clips)
    settings = LoaderSettings(batch_size=BATCH, num_workers=0)
    return Loader(source, settings, seed=0), settings.num_turns * int(source.blocks.max())


def read_batches(loader: Loader, num_batches: int, _: int) -> Work:
    """Takes batches one by one; tells the frames of each."""
    for _ in range(num_batches):
        yield next(loader).frames.shape[:2].numel()
