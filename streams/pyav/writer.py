"""Writing videos by PyAV, whole or as their frames come."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import av
import torch
from av.container import OutputContainer
from jaxtyping import Float32, UInt8
from torch import Tensor

from streams.settings import EncoderSettings

SOUND_BLOCK = 1024  # samples, where an encoder does not say how many it takes


@runtime_checkable
class Sink(Protocol):
    """What takes bytes: an open file, a pipe."""

    def write(self, data: Any, /) -> int | None:
        """Takes more."""
        ...


class VideoWriter:
    """H.264 (yuv420p) and AAC, encoded as frames and sound come.

    Args:
        target: a file, or what takes its bytes.
        container: mp4, or mpegts for a pipe, whose reader can begin before its end.
        size: height and width of the frames.
        frames_per_second: of the video.
        sample_hz: of the sound, mono; None if there is none.
        encoder: how it is encoded.
        factor: how often every pixel is repeated in both directions.
        live: no frame waits in the encoder for later ones.

    Raises:
        ValueError: height or width is odd, which yuv420p cannot hold.
    """

    def __init__(
        self,
        target: Path | Sink,
        container: str,
        size: tuple[int, int],
        frames_per_second: float,
        sample_hz: int | None = None,
        encoder: EncoderSettings | None = None,
        factor: int = 1,
        live: bool = False,
    ) -> None:
        encoder = encoder or EncoderSettings()
        height, width = (factor * side for side in size)
        if height % 2 or width % 2:
            raise ValueError(f"frames are {height}x{width}: height and width must be even for H.264 in yuv420p")
        self.factor, self.num_frames, self.num_samples = factor, 0, 0
        self.container = av.open(str(target) if isinstance(target, Path) else target, "w", format=container)
        self.pictures = add_picture_track(self.container, height, width, frames_per_second, encoder, live)
        self.sounds, self.waiting = None, torch.zeros(0)
        if sample_hz is not None:
            self.sounds = self.container.add_stream("aac", rate=sample_hz, layout="mono")
            self.sounds.bit_rate = encoder.sound_bits_per_second

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        self.container.close()

    def add_frames(self, frames: Iterable[UInt8[Tensor, "3 height width"]]) -> None:
        """Encodes more frames."""
        for frame in frames:
            large = frame.repeat_interleave(self.factor, 1).repeat_interleave(self.factor, 2)
            shown = av.VideoFrame.from_ndarray(large.permute(1, 2, 0).contiguous().numpy(), format="rgb24")
            shown.pts = self.num_frames
            self.num_frames += 1
            self.container.mux(self.pictures.encode(shown))

    def add_sound(self, sound: Float32[Tensor, " sample"]) -> None:
        """Encodes more sound, in blocks of the codec's size; what does not fill one waits for more."""
        assert self.sounds is not None, "written without sound"
        self.waiting = torch.cat((self.waiting, sound.detach().cpu()))
        size = self.sounds.codec_context.frame_size or SOUND_BLOCK
        for block in self.waiting.split(size):
            if len(block) == size:
                self._encode_sound(self.sounds, block)
        self.waiting = self.waiting[len(self.waiting) // size * size :]

    def finish(self) -> None:
        """Encodes what waits."""
        self.container.mux(self.pictures.encode(None))
        if self.sounds is not None:
            if len(self.waiting):
                self._encode_sound(self.sounds, self.waiting)
            self.container.mux(self.sounds.encode(None))

    def _encode_sound(self, track: av.AudioStream, block: Float32[Tensor, " sample"]) -> None:
        part = av.AudioFrame.from_ndarray(block.contiguous().numpy()[None], format="fltp", layout="mono")
        part.sample_rate, part.pts = track.rate, self.num_samples
        part.time_base = Fraction(1, track.rate)
        self.num_samples += len(block)
        self.container.mux(track.encode(part))


def write_video(
    path: Path,
    frames: UInt8[Tensor, "frame 3 height width"],
    frames_per_second: float,
    sound: Float32[Tensor, " sample"] | None = None,
    sample_hz: int = 16000,
    encoder: EncoderSettings | None = None,
    factor: int = 1,
) -> None:
    """Writes an mp4 with H.264 (yuv420p) and AAC; the file appears under its name only when it is complete.

    Args:
        path: of the file.
        frames: pictures.
        frames_per_second: of the video.
        sound: from its first frame on, mono.
        sample_hz: of the sound.
        encoder: how it is encoded.
        factor: how often every pixel is repeated in both directions, frame by frame.

    Raises:
        ValueError: height or width is odd, which yuv420p cannot hold.
    """
    height, width = frames.shape[-2:]
    partial = path.with_name(f".{path.name}.partial")
    hertz = None if sound is None else sample_hz
    with VideoWriter(partial, "mp4", (height, width), frames_per_second, hertz, encoder, factor) as writer:
        writer.add_frames(frames)
        if sound is not None:
            writer.add_sound(sound)
    partial.replace(path)


def add_picture_track(
    container: OutputContainer,
    height: int,
    width: int,
    frames_per_second: float,
    encoder: EncoderSettings,
    live: bool = False,
) -> av.VideoStream:
    """Adds an H.264 track whose clock ticks once per frame."""
    rate = Fraction(frames_per_second).limit_denominator(1001)
    options = {"crf": str(encoder.crf), "preset": encoder.preset, "threads": "1"}
    track = container.add_stream("libx264", rate=rate, options=options | ({"tune": "zerolatency"} if live else {}))
    track.height, track.width = height, width
    track.pix_fmt = "yuv420p"
    track.gop_size = encoder.gop_frames
    track.max_b_frames = 0 if live else encoder.num_b_frames
    track.codec_context.time_base = 1 / rate
    return track
