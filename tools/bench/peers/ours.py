"""Our own reader and source of clips."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from streams.errors import UserError
from streams.pyav.sound import SoundReader
from streams.reader import open_video
from tools.bench.peers.contender import Contender


class Exact:
    """`open_video`, scaled on the way."""

    def __init__(self, path: Path, side: int | None) -> None:
        """Opens the file."""
        self.size = None if side is None else (side, side)
        self.reader = open_video(path, size=self.size)

    def num_frames(self) -> int:
        """Frames of the file."""
        return len(self.reader.seconds)

    def clip(self, indices: Sequence[int]) -> UInt8[Tensor, "frame 3 height width"]:
        """Frames by their place."""
        return self.reader.frames_at(indices, self.size)

    def seconds(self, indices: Sequence[int]) -> list[float]:
        """Presentation times of these frames, on the clock of the sound."""
        return self.reader.seconds[list(indices)].tolist()

    def close(self) -> None:
        """Frees the decoder."""
        self.reader.close()


CONTENDER = Contender("ours", {"frames_at": Exact}, (UserError,))


class Sound:
    """Our sound, kept open."""

    def __init__(self, path: Path, sample_hz: int) -> None:
        """Opens the file."""
        self.reader = SoundReader(path, sample_hz)

    def between(self, start: float, stop: float) -> tuple[Float32[Tensor, " sample"], float]:
        """Mono samples of an interval, and the time of the first."""
        sound = self.reader.read(start, stop)
        return torch.zeros(0) if sound is None else sound, start
