"""What other libraries do not tell of a video, and what they must not be given."""

from dataclasses import dataclass
from pathlib import Path

from streams.errors import DamageError, MediaError
from streams.index import FrameIndex
from streams.pyav.container import frames_of, media_errors, open_container, packets, picture_track
from streams.pyav.scaling import orientation


@dataclass(frozen=True)
class Look:
    """How a video's frames are to be shown.

    Attributes:
        track: number of the picture track among all tracks of the file.
        pixel_aspect: width over height of a pixel of the upright frame.
        mirrored: whether the frames are to be mirrored, besides being turned.
    """

    track: int
    pixel_aspect: float
    mirrored: bool


def look_at(path: Path) -> Look:
    """Decodes the first frame to see how it is to be shown.

    Raises:
        MediaError: it cannot be decoded.
    """
    with media_errors(path), open_container(path) as container:
        track = picture_track(container, path)
        frame = next(frames_of(packets(container, track), track), None)
        if frame is None:
            raise MediaError(f"{path}: the first frames cannot be decoded; write it anew with ffmpeg")
        turns, mirrored = orientation(frame)
        aspect = float(track.sample_aspect_ratio or 1)
        return Look(track.index, 1 / aspect if turns % 2 else aspect, mirrored)


def check_frames(path: Path, index: FrameIndex) -> None:
    """Decodes the whole file and compares it with its index.

    Raises:
        MediaError: a frame is damaged, missing, or not at its time.
    """
    with media_errors(path), open_container(path) as container:
        track = picture_track(container, path)
        ticks = []
        for frame in frames_of(packets(container, track), track):
            if frame.is_corrupt:
                raise DamageError(f"{path}: the frame at tick {frame.pts} is damaged; leave the file out")
            ticks.append(frame.pts)
    if ticks != index.ticks.tolist():
        raise DamageError(
            f"{path}: {len(ticks)} frames decode of {len(index.ticks)}, or not at their times; leave it out"
        )
