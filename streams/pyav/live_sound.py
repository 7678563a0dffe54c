"""Decoded sound as it comes, mono at the run's rate, every sample at its time."""

from dataclasses import dataclass
from fractions import Fraction
from math import gcd

import av
import numpy as np
from jaxtyping import Float32

# A smaller jump of the times than this is rounding, not a gap.
SOUND_JITTER_SECONDS = 0.02


@dataclass(frozen=True)
class Sound:
    """Mono samples; `start` counts samples of the run's rate since the start of the connection."""

    start: int
    samples: Float32[np.ndarray, " sample"]


class LiveSound:
    """Mixes and resamples without end; where the times jump, it begins anew at the new time."""

    def __init__(self, sample_hz: int) -> None:
        """Begins before any sound."""
        self.sample_hz = sample_hz
        self.kind: tuple[object, ...] | None = None
        self.following: int | None = None

    def add(self, frame: av.AudioFrame, seconds: Fraction) -> list[Sound]:
        """What is complete after one more decoded frame, whose first sample is at this time."""
        done, kind, hz = [], (frame.sample_rate, frame.format.name, frame.layout.name), frame.sample_rate
        if kind != self.kind:
            done += self.end()
            self.kind, self.mixer = kind, av.AudioResampler(format="fltp", layout="mono", rate=hz)
        place = round(seconds * hz)
        if self.following is None or abs(place - self.following) >= SOUND_JITTER_SECONDS * hz:
            done += self.end()
            done += self.begin(place, hz)
        for mixed in self.mixer.resample(frame):
            done += self.resample(mixed.to_ndarray()[0], hz)
        return done

    def begin(self, place: int, hz: int) -> list[Sound]:
        """A new run of samples from this place, in samples of the track's rate."""
        # It begins on a tick that both rates share, so that resampling does not shift it; silence leads up to it.
        silence = place % (hz // gcd(hz, self.sample_hz))
        self.following, self.num_fed = place - silence, 0
        self.next = self.following * self.sample_hz // hz
        self.first = -(-place * self.sample_hz // hz)
        self.resampler = av.AudioResampler(format="fltp", layout="mono", rate=self.sample_hz)
        return self.resample(np.zeros(silence, dtype=np.float32), hz) if silence else []

    def resample(self, samples: Float32[np.ndarray, " sample"], hz: int) -> list[Sound]:
        """Mono samples of the track's rate at the run's."""
        assert self.following is not None
        self.following += len(samples)
        if hz == self.sample_hz:
            return self.placed(samples)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = hz, self.num_fed, Fraction(1, hz)
        self.num_fed += len(samples)
        return [sound for part in self.resampler.resample(frame) for sound in self.placed(part.to_ndarray()[0])]

    def placed(self, samples: Float32[np.ndarray, " sample"]) -> list[Sound]:
        """Samples of the run's rate at their place, without the silence that led up to them."""
        start = self.next
        self.next += len(samples)
        skipped = max(0, self.first - start)
        return [Sound(start + skipped, samples[skipped:])] if skipped < len(samples) else []

    def end(self) -> list[Sound]:
        """What the resampler still holds."""
        if self.following is None:
            return []
        self.following = None
        if not self.num_fed:
            return []
        return [sound for part in self.resampler.resample(None) for sound in self.placed(part.to_ndarray()[0])]
