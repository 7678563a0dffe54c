"""Sound by PyAV, cut to the sample."""

from collections.abc import Iterator
from fractions import Fraction
from math import gcd

import av
import numpy as np
import torch
from av.container import InputContainer
from av.error import InvalidDataError
from jaxtyping import Float32
from torch import Tensor

from streams.addresses import Address
from streams.errors import MediaError
from streams.pyav.container import media_errors, open_container

# Packets of sound follow each other; a smaller jump of the times is rounding (a millisecond in Matroska), not a gap.
SOUND_JITTER_SECONDS = 0.02
# Sound codecs need some sound before the first exact sample.
SOUND_RUN_UP_SECONDS = 0.5


def read_sound(
    path: Address, start_seconds: float, stop_seconds: float, sample_hz: int
) -> Float32[Tensor, " sample"] | None:
    """Mono sound of an interval, on the clock of `PyAVReader.seconds`.

    Returns:
        round((stop - start) * sample_hz) samples, silent where the file has no sound; None if it has no sound track.

    Raises:
        MediaError: the sound cannot be decoded.
        ValueError: the interval is empty.
    """
    if not start_seconds < stop_seconds:
        raise ValueError(f"sound from {start_seconds} to {stop_seconds} s: stop must be after start")
    with media_errors(path), open_container(path) as container:
        if not container.streams.audio:
            return None
        track = container.streams.audio[0]
        if track.codec_context is None or not track.codec_context.sample_rate:
            raise MediaError(f"{path}: its sound is in an unknown format; write it anew with ffmpeg")
        native_hz = track.codec_context.sample_rate
        # The first sample stands on a tick that both rates share, so that resampling does not shift it.
        ticks_hz = gcd(native_hz, sample_hz)
        origin = Fraction(int(np.floor((start_seconds - SOUND_RUN_UP_SECONDS) * ticks_hz)), ticks_hz)
        stop = Fraction(int(np.ceil((stop_seconds + 0.1) * ticks_hz)), ticks_hz)
        native = decode_sound(container, track, origin, stop)
    sound = resample(native, native_hz, sample_hz)
    first = round((start_seconds - float(origin)) * sample_hz)
    wanted = np.zeros(round((stop_seconds - start_seconds) * sample_hz), dtype=np.float32)
    part = sound[first : first + len(wanted)]
    wanted[: len(part)] = part
    return torch.from_numpy(wanted)


def decode_sound(
    container: InputContainer, track: av.AudioStream, origin: Fraction, stop: Fraction
) -> Float32[np.ndarray, " sample"]:
    """Mono samples at the track's own rate, each at its place between two times since the container's start."""
    hz = track.codec_context.sample_rate
    shift = Fraction(container.start_time or 0, 1_000_000)
    samples = np.zeros(int((stop - origin) * hz), dtype=np.float32)
    mixer = av.AudioResampler(format="fltp", layout="mono", rate=hz)
    time_base = track.time_base or Fraction(1, hz)
    if origin > 0:
        container.seek(int((origin + shift) / time_base), stream=track)
    following: int | None = None
    for frame in sound_frames(container, track):
        if frame.pts is None:
            continue
        place = round((frame.pts * (frame.time_base or time_base) - shift - origin) * hz)
        if following is not None and abs(place - following) < SOUND_JITTER_SECONDS * hz:
            place = following
        if place >= len(samples):
            break
        part = np.concatenate([mixed.to_ndarray()[0] for mixed in mixer.resample(frame)] or [samples[:0]])
        following = place + len(part)
        low, high = max(place, 0), min(following, len(samples))
        if low < high:
            samples[low:high] = part[low - place : high - place]
    return samples


def sound_frames(container: InputContainer, track: av.AudioStream) -> Iterator[av.AudioFrame]:
    """Decoded sound; the first packets after a seek may be parts that cannot be decoded by themselves."""
    started = False
    for packet in container.demux(track):
        try:
            frames = packet.decode()
        except InvalidDataError:
            if started:
                raise
            continue
        started = started or bool(frames)
        yield from frames


def resample(samples: Float32[np.ndarray, " sample"], from_hz: int, to_hz: int) -> Float32[np.ndarray, " resampled"]:
    """Another rate; the first sample keeps its time."""
    if from_hz == to_hz:
        return samples
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = from_hz, 0, Fraction(1, from_hz)
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=to_hz)
    parts = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([part.to_ndarray()[0] for part in parts])
