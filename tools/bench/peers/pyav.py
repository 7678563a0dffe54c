"""PyAV as most people use it: seek by the nominal rate, decode on, `to_ndarray`, torch's resize."""

from collections.abc import Sequence
from pathlib import Path

import av
import torch
from av.error import FFmpegError
from jaxtyping import UInt8
from torch import Tensor

from tools.bench.peers.contender import Contender, to_square


class Naive:
    """An open container."""

    def __init__(self, path: Path, side: int | None) -> None:
        """Opens the file with one thread."""
        self.side = side
        self.container = av.open(str(path))
        self.track = self.container.streams.video[0]
        self.track.codec_context.thread_count = 1
        self.rate = float(self.track.average_rate or 1)
        self.decoded = self.container.decode(self.track)
        self.next = 0

    def num_frames(self) -> int:
        """Frames that the header tells."""
        return self.track.frames or round(float(self.container.duration or 0) / 1e6 * self.rate)

    def clip(self, indices: Sequence[int]) -> UInt8[Tensor, "frame 3 height width"]:
        """Frames by their place, sorted and without repeats."""
        if indices[0] != self.next:
            self.container.seek(int(indices[0] / self.rate * 1e6))
            self.decoded = self.container.decode(self.track)
        self.next = indices[-1] + 1
        wanted, frames = set(indices), []
        for frame in self.decoded:
            number = round((frame.time or 0.0) * self.rate)
            if number in wanted:
                picture = torch.from_numpy(frame.to_ndarray(format="rgb24"))
                frames.append(to_square(picture.permute(2, 0, 1)[None], self.side))
            if number >= indices[-1]:
                break
        return torch.cat(frames)

    def close(self) -> None:
        """Frees the decoder."""
        self.container.close()


CONTENDER = Contender("pyav", {"naive": Naive}, (FFmpegError, RuntimeError, ValueError, IndexError))


def library_versions() -> dict[str, tuple[int, ...]]:
    """Versions of FFmpeg's libraries inside PyAV."""
    return dict(av.library_versions)
