"""A picture of what a scan found: one frame of every file, with its name, and the reason where there is none."""

import textwrap
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from streams.addresses import address_of, local_copy
from streams.children import Failure, run_in_children
from streams.errors import MediaError
from streams.manifest import Entry, Manifest
from streams.pyav.facts import small_frame
from streams.settings import ScanSettings

SIDE, GAP, LINE, COLUMNS = 160, 8, 12, 8
INK, PAPER, WRONG, ODD = (30, 30, 30), (250, 250, 248), (178, 34, 34), (214, 137, 16)
# Where in a video a frame shows what it is about; many begin black.
SHARE = 0.3
FRAME_SECONDS = 30.0


def draw_sheet(manifest: Manifest, path: Path, settings: ScanSettings, num_workers: int, max_files: int) -> int:
    """Writes a PNG with up to `max_files` files, evenly chosen, unusable ones among them; returns how many.

    Frames are decoded in child processes, as in the scan.
    """
    entries = list(manifest.entries)
    if len(entries) > max_files:
        entries = [entries[place * len(entries) // max_files] for place in range(max_files)]
    work = partial(frame_of, settings.timeout_seconds)
    jobs = [entry.path for entry in entries if entry.reader]
    done = run_in_children(work, jobs, lambda _: FRAME_SECONDS, num_workers, settings.memory_limit_bytes)
    shown = {job: None if isinstance(frame, Failure) else frame for job, frame in done}
    high, wide = SIDE + 3 * LINE + GAP, SIDE + GAP
    num_columns = min(COLUMNS, len(entries))
    sheet = Image.new("RGB", (GAP + num_columns * wide, GAP - (-len(entries) // num_columns) * high), PAPER)
    for place, entry in enumerate(entries):
        tile = draw_tile(entry, shown.get(entry.path))
        sheet.paste(tile, (GAP + place % num_columns * wide, GAP + place // num_columns * high))
    unfinished = path.with_name(f".{path.name}.partial")
    sheet.save(unfinished, format="PNG")
    unfinished.replace(path)
    return len(entries)


def frame_of(timeout_seconds: float, path: str) -> UInt8[np.ndarray, "rows columns 3"] | None:
    """A small frame of a video; None if there is none, which the scan has told already."""
    try:
        with local_copy(address_of(path, timeout_seconds)) as local:
            return small_frame(local, SHARE, SIDE)
    except MediaError:
        return None


def draw_tile(entry: Entry, frame: UInt8[np.ndarray, "rows columns 3"] | None) -> Image.Image:
    """One file: its frame, or the reason why there is none, its name, and a border that tells how it is."""
    tile = Image.new("RGB", (SIDE, SIDE + 3 * LINE), PAPER)
    draw = ImageDraw.Draw(tile)
    if frame is not None:
        picture = Image.fromarray(frame)
        tile.paste(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    else:
        reason = textwrap.wrap("; ".join(entry.problems) or "no frame", 26)[:11]
        draw.multiline_text((GAP, GAP), "\n".join(reason), WRONG, FONT)
    border = WRONG if not entry.reader else ODD if entry.problems else None
    if border:
        draw.rectangle((0, 0, SIDE - 1, SIDE - 1), outline=border, width=3)
    for number, line in enumerate(lines_of(entry)):
        draw.text((0, SIDE + number * LINE), line, INK, FONT)
    return tile


def lines_of(entry: Entry) -> Iterator[str]:
    """Name, size and rate, length and sound."""
    name = entry.path.rpartition("/")[2].encode("ascii", "replace").decode()
    yield name if len(name) <= 26 else f"{name[:15]}...{name[-8:]}"
    if entry.reader:
        yield f"{entry.codec} {entry.width}x{entry.height} {entry.true_rate:.3g}{' VFR' if entry.variable_rate else ''}"
        heard = "silent" if entry.is_silent else f"{entry.sound_codec} {entry.sound_offset_seconds:+.2f}s"
        yield f"{entry.duration_seconds:.1f} s, {heard if entry.has_sound else 'no sound'}"


FONT = ImageFont.load_default(size=10)
