"""Pictures and sound as they come, on the run's fixed grid: at every instant the frame shown and its sound."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from streams.settings import ClipSettings
from streams.video import TINY_SECONDS

# Distances of frames that are remembered, to know how long the last one is shown.
KEPT_DISTANCES = 500


@dataclass
class LiveCounts:
    """What came from a live source, and what was lost.

    Attributes:
        frames: frames of the run's grid that came.
        dropped_frames: those that were in no clip, since the consumer was slower than the source.
        left_over_frames: those that were in no clip, since fewer than a clip's came before a gap or the end.
        silent_frames: those whose sound did not come in time.
        late_frames: pictures of the source with a time not after the one before; they are left out.
        damaged_frames: pictures, and packets of sound or pictures, that cannot be decoded or have no time; left out.
        gaps: places where the source left out more than `LiveSettings.gap_seconds`, jumped back, or broke off.
        reconnects: attempts to connect again.
    """

    frames: int = 0
    dropped_frames: int = 0
    left_over_frames: int = 0
    silent_frames: int = 0
    late_frames: int = 0
    damaged_frames: int = 0
    gaps: int = 0
    reconnects: int = 0


@dataclass(frozen=True)
class GridFrame:
    """What is shown and heard at one instant, `number` frames of the run after the start."""

    number: int
    frame: UInt8[Tensor, "3 height width"]
    sound: Float32[Tensor, " sample"] | None


class LiveGrid:
    """The arithmetic of `streams.videos.VideoSource`, frame by frame.

    Attributes:
        next: the first instant that no picture was given to, in frames of the run.
    """

    def __init__(self, settings: ClipSettings, sound_lag_seconds: float, counts: LiveCounts) -> None:
        """Begins before any picture."""
        self.settings, self.counts = settings, counts
        self.lag_frames = round(sound_lag_seconds * settings.frames_per_second)
        self.next = 0
        self.distances: deque[float] = deque(maxlen=KEPT_DISTANCES)
        self.shown: tuple[float, Callable[[], Tensor]] | None = None
        self.waiting: deque[tuple[int, Tensor]] = deque()
        self.begin(has_sound=False)

    def begin(self, has_sound: bool, first: int | None = None) -> None:
        """A connection whose first frame is shown at the instant `first` or later (any instant if not given)."""
        self.has_sound = has_sound
        self.heard = Heard()
        self.lowest = first

    def picture(self, seconds: float, frame: Callable[[], Tensor]) -> None:
        """A picture that is shown from this time on; `frame` makes it when it is needed. Times increase."""
        if self.shown is not None:
            self.distances.append(seconds - self.shown[0])
            self.show_until(seconds)
        else:
            first = int(np.ceil((seconds - TINY_SECONDS) * self.settings.frames_per_second))
            self.next = first if self.lowest is None else max(first, self.lowest)
        self.shown = seconds, frame

    def show_until(self, stop: float) -> None:
        """Gives the picture shown to the instants before this time."""
        assert self.shown is not None
        stop_number = int(np.ceil((stop - TINY_SECONDS) * self.settings.frames_per_second))
        if self.next < stop_number:
            frame = self.shown[1]()
            self.waiting.extend((number, frame) for number in range(self.next, stop_number))
            self.next = stop_number

    def interrupt(self) -> None:
        """The last picture before a gap or the end: it is shown as long as frames usually are."""
        if self.shown is None:
            return
        usual = float(np.median(self.distances)) if self.distances else 1.0 / self.settings.frames_per_second
        self.show_until(self.shown[0] + usual)
        self.shown, self.lowest = None, self.next

    def sound(self, start: int, samples: Float32[np.ndarray, " sample"]) -> None:
        """Samples from this place on, counted in samples of the run since the start."""
        expected = self.start_of(self.next)
        limit = (self.lag_frames / self.settings.frames_per_second + 10) * self.settings.sample_hz
        if start < expected + limit:  # sound whose clock jumped before the pictures' would fill the memory
            self.heard.add(start, samples)

    def ready(self, final: bool = False) -> list[GridFrame]:
        """Frames whose sound is there, or has not come for too long; all of them if it is final."""
        done = []
        while self.waiting:
            number, frame = self.waiting[0]
            start = self.start_of(number)
            stop = start + self.settings.samples_per_frame
            complete = not self.has_sound or self.heard.stop >= stop
            late = self.waiting[-1][0] - number >= self.lag_frames
            if not (complete or late or final):
                break
            self.waiting.popleft()
            self.counts.frames += 1
            self.counts.silent_frames += not complete and not final
            sound = torch.from_numpy(self.heard.cut(start, stop)) if self.has_sound else None
            self.heard.forget(min(self.start_of(number + 1), stop))
            done.append(GridFrame(number, frame, sound))
        return done

    def start_of(self, number: int) -> int:
        """First sample of an instant: the nearest, which drifts where a frame is not a whole number of samples."""
        return int(np.rint(number / self.settings.frames_per_second * self.settings.sample_hz))


class Heard:
    """The sound that was heard lately, silent where none came."""

    def __init__(self) -> None:
        """Begins with nothing."""
        self.samples, self.start = np.zeros(0, dtype=np.float32), 0

    @property
    def stop(self) -> int:
        """Place after the last sample."""
        return self.start + len(self.samples)

    def add(self, start: int, samples: Float32[np.ndarray, " sample"]) -> None:
        """Adds samples at their place; they replace what came after it."""
        if not len(self.samples):
            self.start = max(self.start, start)
        samples = samples[max(0, self.start - start) :]
        place = max(0, start - self.start)
        gap = np.zeros(max(0, place - len(self.samples)), dtype=np.float32)
        self.samples = np.concatenate((self.samples[:place], gap, samples))

    def cut(self, start: int, stop: int) -> Float32[np.ndarray, " sample"]:
        """A copy of these places."""
        wanted = np.zeros(stop - start, dtype=np.float32)
        low, high = max(start, self.start), min(stop, self.stop)
        if low < high:
            wanted[low - start : high - start] = self.samples[low - self.start : high - self.start]
        return wanted

    def forget(self, place: int) -> None:
        """Frees what lies before this place."""
        if place > self.start:
            self.samples = self.samples[place - self.start :]
            self.start = place
