"""Clips of random parts of the pictures: more to learn a codec from than a small folder of videos shows whole."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from streams.addresses import Address
from streams.clip import Clip
from streams.geometry import resize_crop
from streams.manifest import Entry
from streams.settings import ClipSettings, SelectionSettings
from streams.videos import VideoSource


class RandomCrops(VideoSource):
    """Clips as `VideoSource` reads them, but of a part of their pictures, and mirrored half the time.

    A part has the aspect of the whole and any size from that of a clip to that of the picture, which is read `zoom`
    times as large as a clip. All frames of a clip are cut alike, by the generator that decides its start.
    """

    def __init__(
        self,
        videos: Sequence[Address | Entry],
        settings: ClipSettings,
        selection: SelectionSettings | None = None,
        random_start: bool = False,
        zoom: float = 1.5,
    ) -> None:
        """Probes every file once, as `VideoSource` does.

        Args:
            videos: files or entries of a manifest.
            settings: of the clips as they leave this source.
            selection: which clips.
            random_start: draw the start of a clip anew at every reading.
            zoom: of pictures, before a part is cut out; 1 or more.
        """
        self.size = settings.height, settings.width
        height, width = (round(side * zoom) for side in self.size)
        super().__init__(videos, replace(settings, height=height, width=width), selection, random_start)

    def read_together(self, indices: list[int], generators: list[np.random.Generator]) -> list[Clip]:
        """Reads clips of one video in one pass, and cuts each.

        Raises:
            MediaError: the file has changed, or is damaged.
        """
        clips = super().read_together(indices, generators)
        return [
            replace(clip, frames=random_part(clip.frames, self.size, generator))
            for clip, generator in zip(clips, generators, strict=True)
        ]


def random_part(
    frames: UInt8[Tensor, "frame 3 rows columns"], size: tuple[int, int], generator: np.random.Generator
) -> UInt8[Tensor, "frame 3 height width"]:
    """A part of frames, scaled to (height, width), and mirrored half the time.

    Args:
        frames: at least as large as the size.
        size: of the result.
        generator: of size, place and side.
    """
    rows, columns = frames.shape[-2:]
    share = generator.uniform(max(size[0] / rows, size[1] / columns), 1.0)
    height, width = round(rows * share), round(columns * share)
    top, left = generator.integers(0, rows - height + 1), generator.integers(0, columns - width + 1)
    part = resize_crop(frames[..., top : top + height, left : left + width], *size)
    return (part.flip(-1) if generator.integers(2) else part).contiguous()
