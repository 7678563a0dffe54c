"""Where a world model's codes come from: a latent cache, or videos that are encoded while it trains."""

import dataclasses
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streams.loader import Loader
from streams.mixture import Portion, mixed
from streams.passing_over import PassingOver
from streams.random_crops import RandomCrops
from streams.settings import LoaderSettings
from streams.source import Source
from streams.videos import SoundSource, VideoSource
from worldmodel.cache.build import BuildOptions, encode_videos
from worldmodel.cache.encoding import clip_settings, heldout_of, thumbnail_size
from worldmodel.cache.from_videos import CodingLoader, VideoWindows, WindowEncoder
from worldmodel.cache.latents import CodeBatch, LatentCache, LatentSource
from worldmodel.cache.windows import Windows
from worldmodel.codecs.store import Codec
from worldmodel.errors import MediaError, SettingsError
from worldmodel.folders import find_all, parts_of, weights_of
from worldmodel.settings import TokenizerSettings, TrainSettings
from worldmodel.training import cluster
from worldmodel.training.loop import Batches

NUM_PREVIEWS = 4
MAX_COUNTED_CLIPS = 200  # of the training, encoded to count how often codes occur


@dataclass(frozen=True)
class TrainingData:
    """What a world model is trained on, the same codes in the same order wherever they come from.

    Attributes:
        make_loader: this process's batches of codes from a position of the order on.
        preview: a few whole clips that were held out.
        content: a digest of all on which the order of the samples and their codes depend.
    """

    make_loader: Callable[[int], Batches]
    preview: CodeBatch
    content: str


def open_data(settings: TrainSettings, codecs: Sequence[Codec]) -> TrainingData:
    """The codes that a run is trained on.

    Args:
        settings: of the run.
        codecs: frozen, on this process's device.

    Raises:
        CacheError: the cache cannot be used, or one of its splits is empty.
        MediaError: no video can be used, or none is held out.
        SettingsError: the window does not fit the clips.
    """
    return _of_cache(settings) if settings.cache is not None else _of_videos(settings, codecs)


def open_clips(settings: TokenizerSettings) -> Source:
    """The clips that a codec is made from.

    Raises:
        MediaError: no video can be used, or none has sound though a sound codec is wanted.
    """
    found = [each for each, _ in find_all(settings.videos).values()]
    if settings.kind == "picture" and settings.zoom > 1:
        source = RandomCrops(found, settings.clips, settings.selection, random_start=True, zoom=settings.zoom)
    else:
        kind_of_source = SoundSource if settings.kind == "sound" else VideoSource
        source = kind_of_source(found, settings.clips, settings.selection, random_start=True)
    parts = parts_of(source, settings.videos, range(len(source)))
    for path, reason in source.skipped:
        print(f"left out: {path}: {reason}")
    if settings.kind == "sound" and not any(video.has_sound for video in source.videos):
        raise MediaError(f"none of the {len(source.videos)} videos in {settings.videos} has sound: no sound codec")
    return mixed([PassingOver(Portion(source, part[0], part[-1] + 1)) for part in parts], weights_of(settings.videos))


def first_batch(source: Source, num_items: int = NUM_PREVIEWS) -> Any:
    """A few items of a source, evenly spaced, for previews."""
    count = min(num_items, len(source))
    spread = [index * len(source) // count for index in range(count)]
    return source.collate([source.read(index, np.random.default_rng(index)) for index in spread])


def _of_cache(settings: TrainSettings) -> TrainingData:
    assert settings.cache is not None
    source = LatentSource(settings.cache, settings.num_frames)
    heldout = LatentSource(settings.cache, source.info.num_frames, "heldout", random_start=False)
    return TrainingData(
        lambda position: _loader(settings, source, position), first_batch(heldout), source.info.content()
    )


def _of_videos(settings: TrainSettings, codecs: Sequence[Codec]) -> TrainingData:
    encoding, device = settings.encoding, cluster.device()
    windows = Windows(encoding.clip_frames, settings.num_frames)
    windows.check(str(settings.videos), "encode longer clips with --encoding.clip_frames")
    videos = open_videos(settings, codecs)
    hashes = hashes_of(videos)
    train, heldout = split_clips(videos, settings, hashes)
    size = thumbnail_size(videos.settings, encoding.thumbnail)
    parts = parts_of(videos, settings.videos, train, "left to train on")
    sources = [PassingOver(VideoWindows(videos, part, windows, size)) for part in parts]
    source = mixed(sources, weights_of(settings.videos))
    encode = WindowEncoder(codecs, windows, encoding.chunk_clips, device)
    whole = Windows(encoding.clip_frames, encoding.clip_frames, random_start=False)
    shown = first_batch(PassingOver(VideoWindows(videos, heldout, whole, size)))
    preview = WindowEncoder(codecs, whole, encoding.chunk_clips, device)(shown)
    content = hashlib.sha256(f"{grid_of(videos)} {hashes} {encoding.heldout}".encode()).hexdigest()[:16]
    videos.close()
    return TrainingData(lambda position: CodingLoader(_loader(settings, source, position), encode), preview, content)


def open_videos(settings: TrainSettings, codecs: Sequence[Codec]) -> VideoSource:
    """The videos of a run as whole clips, as a cache would be built from them; says which are left out.

    Raises:
        MediaError: not one clip can be read.
    """
    assert settings.videos is not None
    clips = clip_settings(codecs, settings.encoding.clip_frames)
    videos = VideoSource([each for each, _ in find_all(settings.videos).values()], clips)
    for path, reason in videos.skipped if cluster.is_main() else ():
        print(f"left out: {path}: {reason}")
    return videos


def split_clips(
    videos: VideoSource, settings: TrainSettings, hashes: list[str] | None = None
) -> tuple[list[int], list[int]]:
    """Positions of the clips to train on and of those held out; a video is wholly in one, by its content.

    Args:
        videos: all of them.
        settings: of the run.
        hashes: `hashes_of` the videos, where they are known.

    Raises:
        MediaError: one of the two is empty, or processes find different videos.
    """
    held = heldout_of(hashes or hashes_of(videos), settings.encoding.heldout)
    train = [position for position, clip in enumerate(videos.clips) if not held[clip.video]]
    heldout = [position for position, clip in enumerate(videos.clips) if held[clip.video]]
    for clips, name in ((train, "left to train on"), (heldout, "held out")):
        if not clips:
            raise MediaError(
                f"none of the {len(videos.videos)} videos in {settings.videos} is {name}: give more videos, or another "
                f"share than --encoding.heldout {settings.encoding.heldout}"
            )
    return train, heldout


def hashes_of(videos: VideoSource) -> list[str]:
    """SHA-256 of every video's file; each process of a run hashes its share of them.

    Raises:
        MediaError: processes find different videos, so that their orders would differ.
    """
    ranks = cluster.find_ranks()
    grid = grid_of(videos)
    mine = [video.content_hash() for video in videos.videos[ranks.rank :: ranks.num_ranks]]
    shares = [text.split() for text in cluster.texts(" ".join([hashlib.sha256(grid.encode()).hexdigest(), *mine]))]
    differing = [rank for rank, share in enumerate(shares) if share[0] != shares[0][0]]
    if differing:
        raise MediaError(
            f"process {differing[0]} finds other videos or clips than process 0: every machine must see the same files"
        )
    num_shares = len(shares)
    return [shares[index % num_shares][1 + index // num_shares] for index in range(len(videos.videos))]


def grid_of(videos: VideoSource) -> str:
    """Names and places of all clips, in their order."""
    return "\n".join(f"{clip.path.name} {clip.start}" for clip in videos.clips)


@contextmanager
def opened_cache(settings: TrainSettings, codecs: Sequence[Codec], num_clips: int) -> Iterator[LatentCache]:
    """The cache of a run; of a run trained on videos, a temporary one of some of their clips.

    Args:
        settings: of the run.
        codecs: frozen.
        num_clips: most held-out clips that a temporary cache holds; of the others it has 200.

    Raises:
        CacheError: the cache cannot be used.
        MediaError: no video can be used, or none is held out.
    """
    if settings.cache is not None:
        yield LatentCache(settings.cache)
        return
    videos = open_videos(settings, codecs)
    train, heldout = split_clips(videos, settings)
    chosen = _spread(heldout, num_clips)
    # Counted as often as they are trained on.
    weights = weights_of(settings.videos)
    for part, weight in zip(parts_of(videos, settings.videos, train, "left to train on"), weights, strict=True):
        chosen += _spread(part, round(MAX_COUNTED_CLIPS * weight / sum(weights)))
    chosen.sort()
    encoding, device = settings.encoding, next(codecs[0].parameters()).device
    with tempfile.TemporaryDirectory(prefix="worldmodel.") as folder:
        path = Path(folder) / "latents.zarr"
        options = BuildOptions(encoding.heldout, encoding.chunk_clips, encoding.thumbnail, str(device))
        encode_videos(videos, codecs, path, options, chosen)
        yield LatentCache(path)


def _spread(positions: Sequence[int], count: int) -> list[int]:
    chosen = np.linspace(0, len(positions) - 1, min(count, len(positions))).astype(int)
    return [positions[index] for index in chosen]


def micro_batches(loader: LoaderSettings, accumulate: int) -> LoaderSettings:
    """The loader of an update's micro-batches: `accumulate` of them are one batch, in the same order of the data."""
    if accumulate < 1 or loader.batch_size % accumulate:
        raise SettingsError(
            f"training.accumulate={accumulate} does not divide loader.batch_size={loader.batch_size}: change one"
        )
    turns = loader.num_turns * accumulate  # the order depends on its product with the batch's size alone
    return dataclasses.replace(loader, batch_size=loader.batch_size // accumulate, num_turns=turns)


def _loader(settings: TrainSettings, source: Source, position: int) -> Loader:
    training, loader = settings.training, micro_batches(settings.loader, settings.training.accumulate)
    return Loader(source, loader, training.seed, position, *cluster.data_ranks(training.num_sharing))
