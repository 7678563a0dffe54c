"""Where clips begin: the strategies by which a video is cut into clips."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from streams.errors import MediaError
from streams.settings import SelectionSettings
from streams.video import Video


@dataclass(frozen=True, eq=False)
class Starts:
    """The clips of one video; all in frames of the run's grid since the start of the container.

    Attributes:
        starts: first frame of each clip, not decreasing.
        lows: earliest frame at which it may begin if starts are drawn.
        highs: latest frame at which it may begin then.
    """

    starts: Int64[np.ndarray, " clip"]
    lows: Int64[np.ndarray, " clip"]
    highs: Int64[np.ndarray, " clip"]


def starts_of(video: Video, num_frames: int, settings: SelectionSettings) -> Starts:
    """Clips of a video by the strategy that is asked for.

    Raises:
        MediaError: the strategy needs scene cuts and nobody looked for them, or no scene is as long as a clip.
        ValueError: a number of the settings is below one.
    """
    if min(settings.stride_frames, settings.clips_per_video, settings.block_clips) < 1:
        raise ValueError(f"{settings}: stride_frames, clips_per_video and block_clips must be 1 at least")
    if settings.strategy == "per_video":
        return whole(video, num_frames, settings.clips_per_video)
    if settings.strategy == "sliding":
        starts = video.first + np.arange(0, video.num_frames - num_frames + 1, settings.stride_frames)
        return Starts(starts, starts, starts)
    if settings.strategy == "scenes":
        return in_scenes(video, num_frames)
    return spread(video.first, video.num_frames, num_frames)


def spread(first: int, length: int, num_frames: int) -> Starts:
    """Evenly spaced clips, as few as cover all; drawn, each begins up to half a clip earlier or later."""
    last = length - num_frames
    starts = first + np.rint(np.linspace(0, last, -(-length // num_frames))).astype(np.int64)
    reach = num_frames // 2
    return Starts(starts, np.maximum(starts - reach, first), np.minimum(starts + reach, first + last))


def whole(video: Video, num_frames: int, num_clips: int) -> Starts:
    """As many clips of every video, however long it is; drawn, each begins anywhere."""
    last = video.num_frames - num_frames
    middles = (np.arange(num_clips) + 0.5) / num_clips
    starts = video.first + np.floor(middles * (last + 1)).astype(np.int64)
    return Starts(starts, np.full(num_clips, video.first), np.full(num_clips, video.first + last))


def in_scenes(video: Video, num_frames: int) -> Starts:
    """Evenly spaced clips of every scene that is long enough; none reaches over a cut."""
    if video.cuts is None:
        raise MediaError(
            f"{video.path}: its scene cuts are not known; give a manifest of `python -m tools.videos scan` as videos"
        )
    stop = video.first + video.num_frames
    inside = video.cuts[(video.cuts > video.first) & (video.cuts < stop)]
    edges = np.concatenate([[video.first], inside, [stop]])
    parts = [
        spread(int(begin), int(length), num_frames)
        for begin, length in zip(edges, np.diff(edges), strict=False)
        if length >= num_frames
    ]
    if not parts:
        raise MediaError(f"{video.path}: none of its {len(edges) - 1} scenes is as long as a clip; leave it out")
    columns = (np.concatenate([getattr(part, name) for part in parts]) for name in ("starts", "lows", "highs"))
    return Starts(*columns)
