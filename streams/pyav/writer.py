"""Writing videos by PyAV."""

from fractions import Fraction
from pathlib import Path

import av
from av.container import OutputContainer
from jaxtyping import Float32, UInt8
from torch import Tensor

from streams.settings import EncoderSettings


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
    encoder = encoder or EncoderSettings()
    height, width = (factor * side for side in frames.shape[-2:])
    if height % 2 or width % 2:
        raise ValueError(f"frames are {height}x{width}: height and width must be even for H.264 in yuv420p")
    partial = path.with_name(f".{path.name}.partial")
    with av.open(str(partial), "w", format="mp4") as container:
        picture = add_picture_track(container, height, width, frames_per_second, encoder)
        track = None
        if sound is not None:
            track = container.add_stream("aac", rate=sample_hz, layout="mono")
            track.bit_rate = encoder.sound_bits_per_second
        for number, frame in enumerate(frames):
            large = frame.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
            shown = av.VideoFrame.from_ndarray(large.permute(1, 2, 0).contiguous().numpy(), format="rgb24")
            shown.pts = number
            container.mux(picture.encode(shown))
        container.mux(picture.encode(None))
        if track is not None and sound is not None:
            write_sound(container, track, sound, sample_hz)
    partial.replace(path)


def add_picture_track(
    container: OutputContainer, height: int, width: int, frames_per_second: float, encoder: EncoderSettings
) -> av.VideoStream:
    """Adds an H.264 track whose clock ticks once per frame."""
    rate = Fraction(frames_per_second).limit_denominator(1001)
    options = {"crf": str(encoder.crf), "preset": encoder.preset, "threads": "1"}
    track = container.add_stream("libx264", rate=rate, options=options)
    track.height, track.width = height, width
    track.pix_fmt = "yuv420p"
    track.gop_size = encoder.gop_frames
    track.max_b_frames = encoder.num_b_frames
    track.codec_context.time_base = 1 / rate
    return track


def write_sound(
    container: OutputContainer, track: av.AudioStream, sound: Float32[Tensor, " sample"], sample_hz: int
) -> None:
    """Encodes mono sound in blocks of the codec's size."""
    samples = sound.detach().cpu().contiguous().numpy()
    block = track.codec_context.frame_size or 1024
    for start in range(0, len(samples), block):
        part = av.AudioFrame.from_ndarray(samples[None, start : start + block], format="fltp", layout="mono")
        part.sample_rate, part.pts, part.time_base = sample_hz, start, Fraction(1, sample_hz)
        container.mux(track.encode(part))
    container.mux(track.encode(None))
