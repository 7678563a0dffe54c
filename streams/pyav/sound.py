"""Sound by PyAV, cut to the sample."""

import math
from collections.abc import Iterable, Iterator

import av
import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from streams.addresses import Address
from streams.closing import Closing
from streams.errors import MediaError
from streams.pyav.container import media_errors
from streams.pyav.mixing import Mixer, Resampler
from streams.pyav.placing import FOLLOWED_SECONDS, Clock, place, render
from streams.pyav.soundtrack import SoundTrack

# Sound codecs need some sound before the first exact sample: a frame or two, or more where they borrow bits from
# earlier ones, or have frames of many sizes. Rounded times are told better by many frames, to both sides.
RUN_UP_SECONDS, SHORT_RUN_UP_SECONDS, RUN_OUT_SECONDS = 0.35, 0.1, 0.05
SHORT_RUN_UP, SHORT_RUN_UP_SAMPLES, RUN_UP_FRAMES = ("aac", "ac3", "alac", "eac3", "flac"), 4096, 2
# The filter that changes the rate reaches less far than this, at the lower of both rates.
FILTER_SAMPLES = 160
# A jump ahead of less is decoded through.
NEAR_SECONDS = 1.0


class SoundReader(Closing):
    """The sound of one video at one rate, open over many intervals; those in order are decoded without a seek.

    Samples stand where their presentation times put them on the clock of the container's start, which
    `PyAVReader.seconds` shares. Priming and padding that the container declares are cut, gaps are silent, and times
    that drift away from the samples are followed by stretching the sound, so that it stays with the picture.

    Attributes:
        has_sound: whether there is a sound track; the first one is read.
    """

    def __init__(self, path: Address, sample_hz: int, num_channels: int = 1, drift: float = 0.0) -> None:
        """Opens the file and decodes the beginning of its sound.

        Args:
            path: the video.
            sample_hz: rate to read at.
            num_channels: 1 mixes all channels into one, 2 into stereo, as the ffmpeg program does.
            drift: seconds that the presentation times gain on the samples in a second of sound (`Sync.drift`), which
                are then stretched alike everywhere. With 0 a drift is found from the times around each interval.

        Raises:
            MediaError: the sound cannot be decoded.
            ValueError: rate or channels make no sense.
        """
        if num_channels not in (1, 2) or sample_hz < 1:
            raise ValueError(f"sound at {sample_hz} Hz in {num_channels} channels: give a rate above 0, and 1 or 2")
        self.path, self.sample_hz, self.num_channels, self.drift = path, sample_hz, num_channels, drift
        self.clock: Clock | None = None
        self.forget()
        with media_errors(path):
            self.track = SoundTrack(path)
        self.has_sound = self.track.track is not None
        if self.has_sound:
            try:
                with media_errors(path):
                    self.begin()
            except MediaError:
                self.close()
                raise

    def begin(self) -> None:
        """Decodes the first frame of the track, which tells what all others are."""
        self.frames = self.track.from_start()
        frame = next((frame for frame in self.frames if frame.pts is not None and frame.samples), None)
        if frame is None:
            return
        hz = frame.sample_rate
        self.mixer = Mixer(frame, self.num_channels)
        self.resample = Resampler(hz, self.sample_hz, self.num_channels)
        self.tick = float((frame.time_base or 0) * hz)
        self.zero = float(self.track.start_seconds * hz)
        self.clock = Clock(hz, self.tick, (frame.pts or 0) * self.tick - self.zero, frame.samples, self.drift)
        self.run_up, self.run_out = self.margins(hz)
        self.since, self.num_before = -np.inf, 0
        self.keep([frame], np.inf)

    def margins(self, hz: int) -> tuple[float, float]:
        """Seconds to decode before and after an interval."""
        codec = self.track.codec
        if codec not in SHORT_RUN_UP and not codec.startswith("pcm_"):
            return RUN_UP_SECONDS, RUN_OUT_SECONDS
        if self.tick <= 1 and self.track.frame_samples:
            return RUN_UP_FRAMES * self.track.frame_samples / hz, 0.0
        return max(SHORT_RUN_UP_SECONDS, SHORT_RUN_UP_SAMPLES / hz), RUN_OUT_SECONDS

    def read(
        self, start_seconds: float, stop_seconds: float
    ) -> Float32[Tensor, " sample"] | Float32[Tensor, "2 sample"] | None:
        """Sound of an interval.

        Returns:
            round((stop - start) * sample_hz) samples from the nearest sample to the start on, silent where the file has
            no sound; None if it has no sound track. Mono has one axis, stereo two.

        Raises:
            MediaError: the sound cannot be decoded.
            ValueError: the interval is empty.
        """
        if not start_seconds < stop_seconds:
            raise ValueError(f"sound from {start_seconds} to {stop_seconds} s: stop must be after start")
        if not self.has_sound:
            return None
        wanted = np.zeros((self.num_channels, round((stop_seconds - start_seconds) * self.sample_hz)), np.float32)
        if self.clock is not None:
            try:
                with media_errors(self.path):
                    self.fill(wanted, start_seconds, stop_seconds, self.clock)
            except MediaError:
                # The decoder stands nobody knows where: the next call must seek, and what waits to be mixed goes.
                self.forget()
                self.mixer.take()
                raise
        return torch.from_numpy(wanted if self.num_channels > 1 else wanted[0])

    def fill(
        self,
        wanted: Float32[np.ndarray, "channel sample"],
        start_seconds: float,
        stop_seconds: float,
        clock: Clock,
    ) -> None:
        """Decodes what the interval needs, and resamples it."""
        hz, step = clock.hz, self.resample.step
        # The first sample stands on a tick that both rates share, so that resampling does not shift it.
        margin = FILTER_SAMPLES / min(hz, self.sample_hz)
        start = math.floor((start_seconds - margin) * hz / step) * step
        stop = start + math.ceil(((stop_seconds + margin) * hz - start) / step) * step
        self.decode(start - self.run_up * hz, stop + self.run_out * hz, clock)
        if not self.lengths:
            return
        times = np.array(self.ticks, dtype=np.int64) * self.tick - self.zero
        runs = place(times, np.array(self.lengths), clock, self.num_before)
        if not (clock.drift or all(run.rigid for run in runs)) and self.run_out < FOLLOWED_SECONDS:
            # Times that are followed are followed alike wherever decoding begins, if enough of them are known.
            self.run_up = self.run_out = FOLLOWED_SECONDS
            self.fill(wanted, start_seconds, stop_seconds, clock)
            return
        first = round((start_seconds - start / hz) * self.sample_hz)
        part = self.resample(render(self.sound, runs, start, stop))[:, first : first + wanted.shape[1]]
        wanted[:, : part.shape[1]] = part

    def decode(self, begin: float, end: float, clock: Clock) -> None:
        """Has all sound between two places (counted in samples since the container's start) at hand."""
        if not self.since <= begin or begin > self.until + NEAR_SECONDS * clock.hz:
            self.forget()
            if begin < clock.first + NEAR_SECONDS * clock.hz:
                self.frames = self.track.from_start()
                self.since, self.num_before = -np.inf, 0
            else:
                self.frames = self.track.from_ticks(int((begin + self.zero) / self.tick))
                self.since = begin
        if self.until < end:
            self.keep(self.frames, end)
        past = 0
        while past < len(self.ticks) - 1 and self.stop_of(past) < begin:
            past += 1
        if past:
            num_samples = sum(self.lengths[:past])
            self.sound = self.sound[:, num_samples:]
            del self.ticks[:past], self.lengths[:past]
            self.num_before = None if self.num_before is None else self.num_before + num_samples
            self.since = begin

    def keep(self, frames: Iterable[av.AudioFrame], end: float) -> None:
        """Takes decoded frames up to the first that ends at a place or after it."""
        ticks, lengths, write, waiting = self.ticks, self.lengths, self.mixer.write, 0
        last, samples_to_ticks, mixed = (end + self.zero) / self.tick, 1 / self.tick, [self.sound]
        for frame in frames:
            pts = frame.pts
            if pts is None and ticks:
                pts = ticks[-1] + round(lengths[-1] * samples_to_ticks)
            length = 0 if pts is None else write(frame)
            if pts is None or not length:
                continue
            ticks.append(pts)
            lengths.append(length)
            waiting += length
            if waiting > self.mixer.hz:
                mixed.append(self.mixer.take())
                waiting = 0
            if pts + length * samples_to_ticks >= last:
                break
        if waiting:
            mixed.append(self.mixer.take())
        self.sound = np.concatenate(mixed, axis=1)
        if ticks:
            self.until = self.stop_of(-1)

    def stop_of(self, frame: int) -> float:
        """Place at which a frame at hand ends."""
        return self.ticks[frame] * self.tick - self.zero + self.lengths[frame]

    def forget(self) -> None:
        """Lets go of all sound at hand: it is known of no place, and the next interval seeks."""
        self.frames: Iterator[av.AudioFrame] = iter(())
        self.sound = np.zeros((self.num_channels, 0), dtype=np.float32)
        self.ticks: list[int] = []
        self.lengths: list[int] = []
        self.since, self.until = np.inf, -np.inf
        # Samples of the track before those at hand, where all of them were decoded.
        self.num_before: int | None = None

    def close(self) -> None:
        """Frees the decoder."""
        self.forget()
        self.track.close()


def read_sound(
    path: Address, start_seconds: float, stop_seconds: float, sample_hz: int
) -> Float32[Tensor, " sample"] | None:
    """Mono sound of one interval; see `SoundReader.read`.

    Raises:
        MediaError: the sound cannot be decoded.
        ValueError: the interval is empty.
    """
    with SoundReader(path, sample_hz) as reader:
        return reader.read(start_seconds, stop_seconds)
