"""Decord with one thread."""

from collections.abc import Sequence
from pathlib import Path

import decord
import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from tools.bench.peers.contender import Contender, to_square

decord.logging.set_level(decord.logging.QUIET)


class Batched:
    """Frames of a clip in one call, then scaled by torch."""

    def __init__(self, path: Path, side: int | None) -> None:
        """Opens the file."""
        self.side = side
        self.decoder = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)

    def num_frames(self) -> int:
        """Frames that the library says the file has."""
        return len(self.decoder)

    def clip(self, indices: Sequence[int]) -> UInt8[Tensor, "frame 3 height width"]:
        """Frames by their place."""
        frames = self.decoder.get_batch(list(indices)).asnumpy()
        return to_square(torch.from_numpy(frames).permute(0, 3, 1, 2), self.side)

    def seconds(self, indices: Sequence[int]) -> list[float]:
        """Presentation times of these frames as decord tells them."""
        return np.asarray(self.decoder.get_frame_timestamp(list(indices))).reshape(-1, 2)[:, 0].tolist()

    def close(self) -> None:
        """Frees the decoder."""
        del self.decoder


class OneByOne(Batched):
    """Frame by frame, which keeps large frames in the processor's cache until they are scaled."""

    def clip(self, indices: Sequence[int]) -> UInt8[Tensor, "frame 3 height width"]:
        """Frames by their place."""
        return torch.cat([super(OneByOne, self).clip([index]) for index in indices])


class Scaled(Batched):
    """Scaled by decord (the whole frame, which is all that it offers), then cut at the centre."""

    def __init__(self, path: Path, side: int | None) -> None:
        """Opens the file, once for its size and once to scale."""
        super().__init__(path, side)
        if side is not None:
            rows, columns = self.decoder[0].shape[:2]
            factor = side / min(rows, columns)
            size = {"width": round(columns * factor), "height": round(rows * factor)}
            self.decoder = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1, **size)

    def clip(self, indices: Sequence[int]) -> UInt8[Tensor, "frame 3 height width"]:
        """Frames by their place."""
        if self.side is None:
            return super().clip(indices)
        frames = torch.from_numpy(self.decoder.get_batch(list(indices)).asnumpy()).permute(0, 3, 1, 2)
        top, left = (frames.shape[-2] - self.side) // 2, (frames.shape[-1] - self.side) // 2
        return frames[..., top : top + self.side, left : left + self.side]


CONTENDER = Contender(
    "decord",
    {"get_batch, torch's resize": Batched, "frame by frame, torch's resize": OneByOne, "its scaler": Scaled},
    (decord.DECORDError, RuntimeError, ValueError, IndexError),
    restless=True,
)


class Sound:
    """Sound of a file; decord decodes the whole track when it opens it, and knows no times."""

    def __init__(self, path: Path, sample_hz: int) -> None:
        """Opens the file."""
        self.sample_hz = sample_hz
        self.decoder = decord.AudioReader(str(path), sample_rate=sample_hz, mono=True)

    def between(self, start: float, stop: float) -> tuple[Float32[Tensor, " sample"], float]:
        """Mono samples of an interval, and the time of the first."""
        first, last = max(0, round(start * self.sample_hz)), round(stop * self.sample_hz)
        samples = self.decoder[first : min(last, self.decoder.shape[1])].asnumpy()
        return torch.from_numpy(samples[0]), first / self.sample_hz
