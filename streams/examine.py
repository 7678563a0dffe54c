"""One file to its entry in a manifest, by decoding all of it."""

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from streams.addresses import Address, address_errors, content_hash, local_copy, text_of
from streams.choosing import choose_reader, places_of_samples
from streams.errors import MediaError
from streams.index import FrameIndex
from streams.manifest import Entry
from streams.pyav.container import media_errors, open_container, picture_track
from streams.pyav.edit_lists import rearranges_pictures
from streams.pyav.facts import PictureFacts, SoundFacts, measure
from streams.pyav.index import index_frames
from streams.settings import ScanSettings

# Times between frames that differ by less are the same, rounded; Matroska knows milliseconds.
RATE_TOLERANCE, ROUNDING_SECONDS = 0.1, 0.0021
# A header that tells of so much more than there is belongs to a file that was cut short.
MISSING_SECONDS, MISSING_SHARE = 0.5, 0.1
# Where more times than this run backwards, nobody knows which are right.
MAX_BACKWARDS_SHARE = 0.01


def examine(address: Address, settings: ScanSettings) -> Entry:
    """Reads and decodes all of a file; whatever is wrong with it is in the entry's problems, never an exception."""
    entry = Entry(text_of(address))
    try:
        size, modified = facts_of_file(address)
        entry = replace(entry, size_bytes=size, modified_seconds=modified)
        if settings.max_file_bytes and size > settings.max_file_bytes:
            raise MediaError(f"{address}: has {size} bytes, max_file_bytes allows {settings.max_file_bytes}")
        if not isinstance(address, Path):
            # The other libraries read local files alone.
            settings = alone(settings)
        with local_copy(address, settings.max_file_bytes) as path:
            entry = replace(entry, size_bytes=path.stat().st_size, content_hash=content_hash(path))
            return examine_content(path, entry, settings)
    except (MediaError, OSError) as error:
        return refused(entry, address, error)


def examine_content(path: Path, entry: Entry, settings: ScanSettings) -> Entry:
    """The entry of a local file, with all that is known of its pictures and sound."""
    try:
        require_limits(path, settings)
        with media_errors(path):
            index = index_frames(path)
        entry = replace(entry, container=index.container, codec=index.codec)
        require_rate(path, index, settings)
        places = places_of_samples(len(index.ticks))
        pictures, sound, header_seconds = measure(path, settings.cut_threshold, places)
        entry = replace(entry, **picture_columns(pictures), **sound_columns(sound))
        index, problems = settle(path, index, pictures, settings)
        # Others than PyAV show damaged frames without a word, or end the process.
        allowed = alone(settings) if pictures.damage else settings
        trial = choose_reader(path, index, pictures.samples, allowed.readers, allowed.fall_back)
    except MediaError as error:
        return refused(entry, path, error)
    seconds = index.seconds
    steps = np.diff(seconds)
    step = float(np.median(steps)) if len(steps) else 1 / (pictures.nominal_rate or 1)
    is_variable = bool((np.abs(steps - step) > max(ROUNDING_SECONDS, RATE_TOLERANCE * step)).any())
    start = float(index.start_seconds)
    cuts = np.array([float(tick * index.tick_seconds) - start for tick in pictures.cuts])
    entry = replace(
        entry,
        reader=trial.library,
        num_frames=len(seconds),
        duration_seconds=float(seconds[-1] - seconds[0]) + step,
        true_rate=float(1 / steps.mean()) if len(steps) else 0.0,
        variable_rate=is_variable,
        edit_list=pictures.num_hidden > 0 or ("mov" in index.container and rearranges_pictures(path)),
        sound_offset_seconds=sound.start_seconds - start - float(seconds[0]) if sound and sound.sample_hz else 0.0,
        index=index,
        cuts_seconds=cuts[np.isin(cuts, seconds)],
    )
    return replace(entry, problems=(*problems, *oddities(entry, pictures, sound, header_seconds)))


def alone(settings: ScanSettings) -> ScanSettings:
    """The same with PyAV alone."""
    return replace(settings, readers=("pyav",), fall_back=False)


def refused(entry: Entry, address: Address, error: Exception) -> Entry:
    """The entry of a file that cannot be used, with the reason."""
    reason = str(error) if isinstance(error, MediaError) else f"cannot be read ({error.args[-1]})"
    return replace(entry, reader="", problems=(*entry.problems, reason.removeprefix(f"{address}: ")))


def facts_of_file(address: Address) -> tuple[int, float]:
    """Length in bytes and time of the last change, 0 where an address does not tell.

    Raises:
        MediaError: it cannot be read, or is no file.
    """
    with address_errors(address):
        if isinstance(address, Path):
            status = address.stat()
            if address.is_dir():
                os.scandir(address).close()  # a folder stands for a file only where it may not be listed
                raise MediaError(f"{address}: is a folder")
            return status.st_size, status.st_mtime
        info = address.fs.info(address.path)
        modified: Any = info.get("mtime") or info.get("LastModified") or info.get("created") or 0.0
        seconds = modified.timestamp() if isinstance(modified, datetime) else float(modified)
        return int(info.get("size") or 0), seconds


def require_limits(path: Path, settings: ScanSettings) -> None:
    """Refuses pictures that are too large, by the header alone."""
    with media_errors(path), open_container(path) as container:
        context = picture_track(container, path).codec_context
        if context.width * context.height > settings.max_pixels:
            raise MediaError(
                f"{path}: frames of {context.width}x{context.height} pixels, max_pixels allows {settings.max_pixels}"
            )


def require_rate(path: Path, index: FrameIndex, settings: ScanSettings) -> None:
    """Refuses more frames per second than a camera gives."""
    num_steps = len(index.ticks) - 1
    span = float((index.ticks[-1] - index.ticks[0]) * index.tick_seconds)
    if num_steps > settings.max_frames_per_second * span:
        raise MediaError(
            f"{path}: {num_steps / span:.0f} frames per second, "
            f"max_frames_per_second allows {settings.max_frames_per_second:g}"
        )


def settle(
    path: Path, index: FrameIndex, pictures: PictureFacts, settings: ScanSettings
) -> tuple[FrameIndex, list[str]]:
    """The frames that can be used, which are those that decode before any damage, and what is odd about them.

    Raises:
        MediaError: too few decode, their times run backwards, or they come otherwise when decoded again.
    """
    shown = np.array(pictures.ticks, dtype=np.int64)
    is_later = np.diff(np.maximum.accumulate(shown), prepend=shown[:1] - 1) > 0
    num_backwards = int((np.diff(shown) < 0).sum())
    if num_backwards > MAX_BACKWARDS_SHARE * len(shown):
        raise MediaError(f"{path}: its times run backwards {num_backwards} times; write it anew with ffmpeg")
    decoded, listed = shown[is_later], index.ticks
    said = []
    if pictures.damage:
        said.append(f"damaged ({pictures.damage}): the first {len(decoded)} of {len(listed)} frames are used")
    if len(decoded) < len(shown):
        said.append(f"{len(shown) - len(decoded)} frames are not later than the ones before, and left out")
    if not len(decoded) or (len(decoded) < settings.min_decoded_share * len(listed) and not pictures.is_interlaced):
        reason = f" ({pictures.damage})" if pictures.damage else ""
        raise MediaError(f"{path}: damaged{reason}: only {len(decoded)} of {len(listed)} frames decode; leave it out")
    if np.array_equal(decoded, listed):
        return index, said
    if said:
        return replace(index, ticks=listed[np.isin(listed, decoded)]), said
    # Two packets may make one frame, and some containers tell wrong times.
    with media_errors(path):
        again = index_frames(path, decode=True)
    if not np.array_equal(again.ticks, decoded):
        raise MediaError(f"{path}: {len(decoded)} frames decode, and {len(again.ticks)} the next time; leave it out")
    return again, [] if pictures.is_interlaced else [f"{len(listed)} frames are listed and {len(decoded)} decode"]


def picture_columns(pictures: PictureFacts) -> dict[str, Any]:
    """Columns of the manifest that the pictures alone decide."""
    height, width = next(iter(pictures.sizes), (0, 0))
    return {
        "pixel_format": pictures.pixel_format,
        "width": width,
        "height": height,
        "rotation": pictures.rotation,
        "sample_aspect_ratio": pictures.sample_aspect_ratio,
        "nominal_rate": pictures.nominal_rate,
    }


def sound_columns(sound: SoundFacts | None) -> dict[str, Any]:
    """Columns of the manifest that the sound alone decides; none without sound that decodes."""
    if sound is None or not sound.sample_hz:
        return {}
    return {
        "sound_codec": sound.codec,
        "sample_hz": sound.sample_hz,
        "num_channels": sound.num_channels,
        "sound_seconds": sound.seconds,
        "sound_drift_seconds": sound.drift_seconds,
        "sound_peak_db": 20 * math.log10(sound.peak) if sound.peak else -math.inf,
    }


def oddities(entry: Entry, pictures: PictureFacts, sound: SoundFacts | None, header_seconds: float) -> Iterator[str]:
    """What people should know of a file that can be used."""
    if len(pictures.sizes) > 1:
        yield f"the size changes: {', '.join(f'{width}x{height}' for height, width in pictures.sizes)}"
    num_found = len(pictures.ticks) + pictures.num_hidden
    if not pictures.damage and pictures.num_listed > num_found:
        yield f"the header tells of {pictures.num_listed} frames, {num_found} are there"
    longest = max(entry.duration_seconds, entry.sound_seconds)
    late = abs(entry.sound_offset_seconds) + (float(entry.index.start_seconds) if entry.index else 0.0)
    if header_seconds - late - longest > max(MISSING_SECONDS, MISSING_SHARE * longest):
        yield f"the header tells of {header_seconds:.2f} s, {longest:.2f} s are there"
    if sound is None:
        return
    if not sound.sample_hz:
        yield f"its sound does not decode ({sound.damage or 'unknown format, or nothing in it'})"
    elif sound.damage:
        yield f"its sound is damaged ({sound.damage}): the first {sound.seconds:.2f} s are used"
    if sound.gaps:
        yield f"its sound has {len(sound.gaps)} gaps, {sum(sound.gaps):+.3f} s in all"
