"""One usable video: when its frames are shown on the run's grid of time, and what reading it needs."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from streams.addresses import Address, address_errors, address_of, content_hash
from streams.errors import MediaError
from streams.index import FrameIndex
from streams.manifest import Entry
from streams.pyav.sound import SoundReader
from streams.reader import open_video
from streams.settings import ClipSettings, ReaderName

# Times are sums of rounded numbers: a frame that starts this much late still counts as shown.
TINY_SECONDS = 1e-4
# Less than this over a whole file is what rounding of times leaves.
LEAST_DRIFT_SECONDS = 0.005


@dataclass(frozen=True, eq=False)
class Video:
    """One usable video on the grid of a run.

    Attributes:
        path: the file.
        index: its frames.
        first: first instant of the grid (in frames of the run) at which a frame is shown.
        num_frames: instants from there to the end of the video.
        reader: library that reads its pictures.
        entry: what a scan found; None if there was none, and then its status alone tells whether the file has changed.
        has_sound: whether there is a track of sound.
        cuts: instants of the grid at which another scene begins; None if nobody looked for them.
        status: of the file when it was probed (see `status_of`).
    """

    path: Address
    index: FrameIndex = field(repr=False)
    first: int
    num_frames: int
    reader: ReaderName
    has_sound: bool = False
    entry: Entry | None = field(default=None, repr=False)
    cuts: Int64[np.ndarray, " cut"] | None = field(default=None, repr=False)
    status: tuple[int, ...] = ()

    @property
    def drift(self) -> float:
        """Seconds that the times of the sound gain on its samples per second; 0 where it is left to be found."""
        if self.entry is None or abs(self.entry.sound_drift_seconds) < LEAST_DRIFT_SECONDS:
            return 0.0
        return self.entry.sound_drift_seconds / self.entry.sound_seconds

    def content_hash(self) -> str:
        """SHA-256 of the file's bytes; that of the scan where there was one."""
        return content_hash(self.path) if self.entry is None else self.entry.content_hash

    def shown_at(self, seconds: Float64[np.ndarray, " instant"]) -> Int64[np.ndarray, " instant"]:
        """The frame that is shown at each instant; the first one before it begins."""
        return np.maximum(np.searchsorted(self.index.seconds, seconds + TINY_SECONDS, side="right") - 1, 0)


def status_of(address: Address) -> tuple[int, ...]:
    """Size, time of the last change and number of a local file: while they stay, so do its bytes. Empty for others.

    Raises:
        MediaError: it is not there, or cannot be read.
    """
    if not isinstance(address, Path):
        return ()
    with address_errors(address):
        found = address.stat()
    return (found.st_size, found.st_mtime_ns, found.st_ino)


def probe(address: Address, settings: ClipSettings) -> Video:
    """Reads the times of a file and decodes a bit of it.

    Raises:
        MediaError: it cannot be used.
    """
    status = status_of(address)
    with open_video(address, settings.reader) as reader:
        video = on_grid(address, reader.index, reader.name, settings)  # type: ignore[arg-type]
        reader.frames_at([0])
    with SoundReader(address, settings.sample_hz) as sound:
        start = video.first / settings.frames_per_second
        sound.read(start, start + 1 / settings.frames_per_second)
    return replace(video, status=status, has_sound=sound.has_sound)


def of_entry(entry: Entry, settings: ClipSettings) -> Video:
    """A video that a scan has examined; no file is opened.

    Raises:
        MediaError: it cannot be used.
    """
    address = address_of(entry.path)
    if not entry.reader:
        raise MediaError(
            f"{address}: {'; '.join(entry.problems) or 'was not usable when it was scanned'}; leave it out"
        )
    if entry.index is None:
        return probe(address, settings)
    reader = entry.reader if settings.reader == "auto" else settings.reader
    return on_grid(address, entry.index, reader, settings, entry)  # type: ignore[arg-type]


def on_grid(
    address: Address, index: FrameIndex, reader: ReaderName, settings: ClipSettings, entry: Entry | None = None
) -> Video:
    """Where a video lies on the grid of a run.

    Raises:
        MediaError: it is shorter than a clip.
    """
    seconds, rate = index.seconds, settings.frames_per_second
    # The last frame is shown as long as frames usually are.
    stop = seconds[-1] + (float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1.0 / rate)
    first = int(np.ceil((seconds[0] - TINY_SECONDS) * rate))
    num_frames = int(np.ceil((stop - TINY_SECONDS) * rate)) - first
    if num_frames < settings.num_frames:
        needed = settings.num_frames / rate
        raise MediaError(f"{address}: too short ({stop - seconds[0]:.2f} s, a clip needs {needed:.2f} s); leave it out")
    cuts = None if entry is None else np.ceil((entry.cuts_seconds - TINY_SECONDS) * rate).astype(np.int64)
    has_sound = entry is not None and entry.has_sound
    return Video(address, index, first, num_frames, reader, has_sound, entry, cuts)
