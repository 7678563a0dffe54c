"""TorchCodec in its exact mode, with one thread."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torchcodec
from jaxtyping import Float32, UInt8
from torch import Tensor
from torchcodec.decoders import AudioDecoder, VideoDecoder  # pyright: ignore[reportPrivateImportUsage]
from torchcodec.transforms import CenterCrop, Resize  # pyright: ignore[reportPrivateImportUsage]

from tools.bench.peers.contender import Contender, to_square


class Batched:
    """Frames of a clip in one call, then scaled by torch."""

    def __init__(self, path: Path, side: int | None) -> None:
        """Opens the file, which is scanned for its frames."""
        self.side = side
        self.decoder = VideoDecoder(path, seek_mode="exact", num_ffmpeg_threads=1)

    def num_frames(self) -> int:
        """Frames that the library says the file has."""
        return len(self.decoder)

    def clip(self, indices: Sequence[int]) -> UInt8[Tensor, "frame 3 height width"]:
        """Frames by their place."""
        return to_square(self.decoder.get_frames_at(list(indices)).data, self.side)

    def seconds(self, indices: Sequence[int]) -> list[float]:
        """Presentation times of these frames, on the clock of the sound."""
        return self.decoder.get_frames_at(list(indices)).pts_seconds.tolist()

    def close(self) -> None:
        """Frees the decoder."""
        del self.decoder


class OneByOne(Batched):
    """Frame by frame, which keeps large frames in the processor's cache until they are scaled."""

    def clip(self, indices: Sequence[int]) -> UInt8[Tensor, "frame 3 height width"]:
        """Frames by their place."""
        return torch.cat([to_square(self.decoder.get_frame_at(index).data[None], self.side) for index in indices])


class Transformed(Batched):
    """Cut and scaled by TorchCodec's own transforms."""

    def __init__(self, path: Path, side: int | None) -> None:
        """Opens the file; its size comes from the header, without a second scan."""
        super().__init__(path, None)
        if side is not None:
            header = VideoDecoder(path, seek_mode="approximate").metadata
            short = min(header.height or side, header.width or side)
            transforms = [CenterCrop((short, short)), Resize((side, side))]
            self.decoder = VideoDecoder(path, seek_mode="exact", num_ffmpeg_threads=1, transforms=transforms)


CONTENDER = Contender(
    "torchcodec",
    {"get_frames_at, torch's resize": Batched, "get_frame_at, torch's resize": OneByOne, "transforms": Transformed},
)


class Sound:
    """Sound of a file, decoder kept open."""

    def __init__(self, path: Path, sample_hz: int) -> None:
        """Opens the file."""
        self.decoder = AudioDecoder(path, sample_rate=sample_hz, num_channels=1)

    def between(self, start: float, stop: float) -> tuple[Float32[Tensor, " sample"], float]:
        """Mono samples of an interval, and the time of the first."""
        samples = self.decoder.get_samples_played_in_range(start, stop)
        return samples.data[0], samples.pts_seconds


def ffmpeg_version() -> str:
    """Version of FFmpeg that TorchCodec found on this machine."""
    return str(torchcodec.ffmpeg_major_version)  # pyright: ignore[reportPrivateImportUsage]
