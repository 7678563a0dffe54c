"""Which frames of a clip are one item of training, the same whether its codes are cached or made on the fly."""

from dataclasses import dataclass

import numpy as np

from worldmodel.errors import SettingsError


@dataclass(frozen=True)
class Windows:
    """The windows of clips.

    A window starts at an even frame, since the fast view holds every second one: drawn at random, or evenly spaced over
    the clip.

    Attributes:
        clip_frames: frames of a clip.
        num_frames: frames of a window.
        random_start: draw the start from the generator.
    """

    clip_frames: int
    num_frames: int
    random_start: bool = True

    def check(self, where: str, remedy: str) -> None:
        """Refuse windows that do not fit.

        Raises:
            SettingsError: says of which clips (`where`), and what else could be done (`remedy`).
        """
        if not 2 <= self.num_frames <= self.clip_frames:
            raise SettingsError(
                f"num_frames {self.num_frames} does not fit: the clips of {where} have {self.clip_frames} frames; "
                f"ask for 2 to {self.clip_frames}, or {remedy}"
            )

    @property
    def per_clip(self) -> int:
        """Items that a clip gives."""
        return self.clip_frames // self.num_frames

    def start_of(self, window: int, generator: np.random.Generator) -> int:
        """First frame of a window."""
        last = (self.clip_frames - self.num_frames) // 2
        if self.random_start:
            return 2 * int(generator.integers(last + 1))
        return 2 * (window * last // max(self.per_clip - 1, 1))

    def parts(self, start: int) -> tuple[slice, slice, slice]:
        """Where the window from `start` on stands in the clip, in the clip reversed, and in every second frame."""
        stop = start + self.num_frames
        return (
            slice(start, stop),
            slice(self.clip_frames - stop, self.clip_frames - start),
            slice(start // 2, stop // 2),
        )
