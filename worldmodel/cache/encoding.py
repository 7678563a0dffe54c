"""Videos to a latent cache: every clip is read once and encoded in the three orders that views need."""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Int, Integer, UInt8
from torch import Tensor
from tqdm import tqdm

from streams.addresses import content_hash, text_of
from streams.clip import Batch, Clip, to_float
from streams.errors import MediaError
from streams.geometry import resize_crop
from streams.settings import ClipSettings
from streams.videos import VideoSource
from worldmodel.cache.code_statistics import CodeStatistics, StillStatistics
from worldmodel.cache.latents import CacheInfo, LatentCache, LatentWriter
from worldmodel.errors import CacheError, SettingsError
from worldmodel.layout import Pyramid

log = logging.getLogger(__name__)


class Codec(Protocol):
    """What the build needs of a codec; `worldmodel.codecs` has the real ones."""

    kind: Any
    clips: Any

    @property
    def pyramid(self) -> Pyramid:
        """Layout of the codes of one frame."""
        ...

    @property
    def fingerprint(self) -> Any:
        """What tells this codec from every other."""
        ...

    def encode(self, clip: Tensor, /) -> Int[Tensor, "batch frame code"]:
        """Codes of frames (-1 to 1), or of sound, in the order in which they are given."""
        ...


def by_kind(codecs: Sequence[Any]) -> dict[str, Any]:
    """Codecs by what they encode.

    Raises:
        SettingsError: unless there is one picture codec and at most one sound codec, sampling time alike.
    """
    kinds = [codec.kind for codec in codecs]
    if sorted(kinds) not in (["picture"], ["picture", "sound"]):
        raise SettingsError(f"codecs of kinds {kinds} were given: give one picture codec and at most one sound codec")
    if len({(codec.clips.frames_per_second, codec.clips.sample_hz) for codec in codecs}) != 1:
        rates = [(codec.kind, codec.clips.frames_per_second, codec.clips.sample_hz) for codec in codecs]
        raise SettingsError(
            f"the codecs sample time differently (kind, frames_per_second, sample_hz): {rates}; train them alike"
        )
    return dict(zip(kinds, codecs, strict=True))


def clip_settings(codecs: Sequence[Any], num_frames: int) -> ClipSettings:
    """How videos must be read for these codecs: as they were trained, in clips of `num_frames`."""
    return replace(by_kind(codecs)["picture"].clips, num_frames=num_frames)


def encode_videos(
    source: VideoSource,
    codecs: Sequence[Any],
    path: str | Path,
    heldout: float = 0.1,
    batch_size: int = 32,
    thumbnail_side: int = 32,
    overwrite: bool = False,
    device: torch.device | str = "cpu",
    num_threads: int = 1,
    progress: bool = True,
    positions: Sequence[int] | None = None,
) -> CacheInfo:
    """Write the latent cache of the clips of a source.

    Args:
        source: clips, sampled as `clip_settings` says.
        codecs: one picture codec and at most one sound codec (`Codec`), on `device`.
        path: the cache to write.
        heldout: share of the videos that is kept for evaluation; a video is wholly in or out of it.
        batch_size: clips encoded at a time.
        thumbnail_side: shorter side of the thumbnails.
        overwrite: replace a cache that is there already.
        device: where the codecs are.
        num_threads: of torch while encoding. Sticky encoding is many small steps, one frame after another, at each of
            which threads wait for each other: on a busy machine of two cores, two were tens of times slower than one.
        progress: show clips per second and the time left.
        positions: which of the source's clips; all if None.

    Raises:
        SettingsError: when the codecs do not fit together or the source.
        CacheError: when the cache is there already, or no clip could be read.
    """
    kinds, settings = by_kind(codecs), source.settings
    positions = range(len(source)) if positions is None else positions
    if settings != clip_settings(codecs, settings.num_frames):
        raise SettingsError(
            f"the videos are read as {settings}, but the codecs were trained on {kinds['picture'].clips}"
        )
    hashes = [video.content_hash() for video in source.videos]
    info = CacheInfo(
        fingerprints={kind: codec.fingerprint for kind, codec in kinds.items()},
        pyramids={kind: codec.pyramid for kind, codec in kinds.items()},
        num_frames=settings.num_frames,
        frames_per_second=settings.frames_per_second,
        sample_hz=settings.sample_hz,
        thumbnail=thumbnail_size(settings, thumbnail_side),
        videos=[(text_of(video.path.absolute()), digest) for video, digest in zip(source.videos, hashes, strict=True)],
    )
    splits = heldout_of(hashes, heldout)
    skipped = [(str(file), reason) for file, reason in source.skipped]
    statistics = {kind: CodeStatistics(codec.pyramid) for kind, codec in kinds.items()}
    still = StillStatistics(kinds["picture"].pyramid)
    with (
        LatentWriter(path, info, overwrite, expected_clips=len(positions)) as writer,
        limited_threads(num_threads),
        tqdm(total=len(positions), unit="clip", disable=not progress) as bar,
    ):
        for indices, clips in _batches(source, positions, batch_size, skipped, bar):
            batch = source.collate(clips)
            rows = encode_batch(batch, kinds, info.thumbnail, device)
            videos = np.array([source.clips[index].video for index in indices], dtype=np.int32)
            writer.append(rows | {"video": videos, "heldout": np.array(splits)[videos]})
            for kind, counted in statistics.items():
                counted.add(rows[kind])
            still.add(rows["picture"], batch.frames)
        measured: dict[str, Any] = {}
        if writer.num_clips:
            measured = {kind: counted.summary() for kind, counted in statistics.items()} | {"still": still.summary()}
        info = writer.finish(skipped, measured)
    log.info("%s: %d clips of %d videos, %d skipped", path, writer.num_clips, len(info.videos), len(skipped))
    return info


@torch.no_grad()
def encode_clips(
    batch: Batch,
    kinds: dict[str, Any],
    device: torch.device | str,
    lengths: Sequence[Sequence[int]] | None = None,
) -> dict[str, Tensor]:
    """Codes of clips in all their views, on the device, by the names of a cache's arrays.

    Args:
        batch: whole clips.
        kinds: codecs by what they encode, on the device.
        device: where the codes are made.
        lengths: of every view of the picture, how many of its first frames are wanted of each clip; all if None.
    """
    frames = to_float(batch.frames.to(device))
    # Sticky codes depend on the direction: merely turning them round would give the arrow of time away.
    views = kinds["picture"].encode_views(frames, lengths)
    codes: dict[str, Tensor] = dict(zip(("picture", "picture_reversed", "picture_fast"), views, strict=True))
    if "sound" in kinds:
        codes["sound"] = kinds["sound"].encode(batch.sound.to(device))
    return codes


def thumbnails_of(
    frames: UInt8[Tensor, "batch frame 3 height width"], size: tuple[int, int]
) -> UInt8[Tensor, "batch frame 3 small_height small_width"]:
    """The frames at the (height, width) of thumbnails."""
    return resize_crop(frames.flatten(0, 1), *size).unflatten(0, frames.shape[:2])


def encode_batch(
    batch: Batch, kinds: dict[str, Any], thumbnail: tuple[int, int], device: torch.device | str
) -> dict[str, np.ndarray]:
    """Rows of a cache for a batch of clips, without those that say which video they are from."""
    codes = encode_clips(batch, kinds, device)
    return {name: _uint16(value) for name, value in codes.items()} | {
        "thumbnails": thumbnails_of(batch.frames, thumbnail).numpy(),
        "seconds": batch.seconds.numpy(),
        "has_sound": batch.has_sound.numpy(),
    }


def check_codes(path: str | Path, codecs: Sequence[Any], num_clips: int, generator: np.random.Generator) -> float:
    """Read some clips of a cache from their videos again and encode them again.

    Returns:
        The share of picture codes that are as in the cache; 1 up to ties that another machine breaks differently.

    Raises:
        MediaError: when a video is gone or has changed.
        CacheError: when fewer than 99 % of the codes agree.
    """
    cache, kinds = LatentCache(path), by_kind(codecs)
    settings = clip_settings(codecs, cache.info.num_frames)
    shares = []
    for position in generator.choice(cache.num_clips, min(num_clips, cache.num_clips), replace=False).tolist():
        name, digest = cache.info.videos[int(cache.rows["video"][position])]
        if not Path(name).is_file() or content_hash(Path(name)) != digest:
            raise MediaError(f"{name} is gone or has changed since the cache was made: build the cache again")
        source = VideoSource([Path(name)], settings)
        first = round(float(cache.rows["seconds"][position][0]) * settings.frames_per_second)
        index = [address.start for address in source.clips].index(first)
        clip = source.read(index, generator)
        source.close()
        rows = encode_batch(source.collate([clip]), {"picture": kinds["picture"]}, cache.info.thumbnail, "cpu")
        shares.append((rows["picture"][0] == cache.rows["picture"][position]).mean())
    if np.mean(shares) < 0.99:
        raise CacheError(
            f"only {np.mean(shares):.1%} of the codes in {path} are what the codec gives now: build the cache again"
        )
    return float(np.mean(shares))


def heldout_of(hashes: list[str], share: float) -> list[bool]:
    """Which videos are held out, by the hash of their content, so that new videos leave the others where they are.

    With two different videos or more, both splits have one at least, unless `share` is 0 or 1.

    Raises:
        SettingsError: for a share outside 0 to 1.
    """
    if not 0 <= share <= 1:
        raise SettingsError(f"heldout {share} is not a share: give a number from 0 to 1")
    place = {digest: int(digest[:8], 16) / 2**32 for digest in hashes}
    chosen = {digest for digest in hashes if place[digest] < share}
    if len(place) > 1 and 0 < share < 1:
        chosen = chosen or {min(hashes, key=place.__getitem__)}
        if chosen == place.keys():
            chosen = chosen - {max(hashes, key=place.__getitem__)}
    return [digest in chosen for digest in hashes]


def thumbnail_size(settings: ClipSettings, side: int) -> tuple[int, int]:
    """(height, width) with the aspect of the frames, so that a thumbnail shows all of a frame; never larger."""
    factor = min(1.0, side / min(settings.height, settings.width))
    return round(settings.height * factor), round(settings.width * factor)


@contextmanager
def limited_threads(num_threads: int) -> Iterator[None]:
    """Torch's threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _uint16(codes: Int[Tensor, "batch frame code"]) -> Integer[np.ndarray, "batch frame code"]:
    return codes.cpu().numpy().astype(np.uint16)


def _batches(
    source: VideoSource, positions: Sequence[int], batch_size: int, skipped: list[tuple[str, str]], bar: Any
) -> Iterator[tuple[list[int], list[Clip]]]:
    """Readable clips in order, read ahead by a thread; the others go to `skipped` with their reason."""
    indices: list[int] = []
    clips: list[Clip] = []
    for index, pending in _read_ahead(source, positions, 2 * batch_size):
        try:
            clip = pending.result()
        except MediaError as error:
            address = source.clips[index]
            skipped.append((str(address.path), f"clip at frame {address.start}: {error}"))
        else:
            indices.append(index)
            clips.append(clip)
        bar.update()
        if len(clips) == batch_size:
            yield indices, clips
            indices, clips = [], []
    if clips:
        yield indices, clips


def _read_ahead(source: VideoSource, positions: Sequence[int], num_ahead: int) -> Iterator[tuple[int, "Future[Clip]"]]:
    generator = np.random.default_rng(0)
    waiting: deque[tuple[int, Future[Clip]]] = deque()
    with ThreadPoolExecutor(max_workers=1) as reader:  # one, since a source's decoders are used by one thread at a time
        try:
            for index in positions:
                waiting.append((index, reader.submit(source.read, index, generator)))
                if len(waiting) > num_ahead:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            reader.shutdown(cancel_futures=True)
            source.close()
