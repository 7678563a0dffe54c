"""A camera, a pipe, a network stream or a file at real-time pace as an endless stream of clips."""

from collections import deque
from collections.abc import Iterator
from threading import Condition, Thread
from time import monotonic

import torch

from streams.clip import Clip
from streams.closing import Closing
from streams.errors import MediaError
from streams.live_grid import GridFrame, LiveCounts
from streams.live_reading import LiveReading
from streams.settings import ClipSettings, LiveSettings

CLOSING_SECONDS = 1.0


class LiveSource(Iterator[Clip], Closing):
    """Clips of a source that does not wait, decoded in a thread of this process (an iterator, a context manager).

    The frames of a clip follow each other on the run's grid without a gap. Where frames were dropped, or the source
    left some out, the next clip begins after them: its times say so. Times count from the start of the first
    connection; after another one they go on by as much as passed in between. The iterator ends where the source ends.

    Attributes:
        delay_seconds: how much later the last clip was taken than it could have been: the time from its last frame to
            now, less what the promptest frame took. What every frame takes (camera, network) is not seen from here.
    """

    def __init__(
        self,
        address: str,
        settings: ClipSettings,
        live: LiveSettings | None = None,
        stride_frames: int | None = None,
    ) -> None:
        """Begins to connect; what fails then is raised where a clip is asked for.

        Args:
            address: /dev/video0, pipe:0 (or -, or a FIFO), rtsp://, http(s)://, tcp://, udp://, rtmp://, or a file.
            settings: how clips are sampled.
            live: how the source is watched.
            stride_frames: from the start of one clip to that of the next. As many as a clip has if not given; with
                fewer the clips overlap.

        Raises:
            MediaError: there is no such device or file, or the kind of address is unknown.
            ValueError: a number is out of range, or the buffer holds less than a clip.
        """
        self.settings, self.live = settings, live or LiveSettings()
        self.stride_frames = settings.num_frames if stride_frames is None else stride_frames
        self.capacity = self.check()
        self.reading = LiveReading(address, settings, self.live, self.give)
        self.buffer: deque[GridFrame] = deque()
        self.next_start = self.unseen = 0  # in frames of the run: of the next clip, and of what no clip had yet
        self.delay_seconds = 0.0
        self.changed = Condition()
        self.error: MediaError | None = None
        self.ended = self.complete = False
        self.thread = Thread(target=self.watch, name=f"watching {self.reading.shown}", daemon=True)
        self.thread.start()

    def check(self) -> int:
        """How many frames the buffer holds."""
        for name in ("buffer_seconds", "timeout_seconds", "gap_seconds", "speed"):
            if not getattr(self.live, name) > 0:
                raise ValueError(f"{name}={getattr(self.live, name)} is out of range: it must be above 0")
        if self.stride_frames < 1:
            raise ValueError(f"stride_frames={self.stride_frames} is out of range: it must be 1 or more")
        rate, needed = self.settings.frames_per_second, self.settings.num_frames
        capacity = round(self.live.buffer_seconds * rate)
        if capacity < needed:
            raise ValueError(
                f"buffer_seconds={self.live.buffer_seconds:g} holds {capacity} frames at {rate:g} per second, but a "
                f"clip has {needed}: give {needed / rate:g} or more"
            )
        return capacity

    @property
    def counts(self) -> LiveCounts:
        """What came so far, and what was lost."""
        return self.reading.counts

    def watch(self) -> None:
        """The thread."""
        try:
            self.reading.run()
            self.complete = True
        except MediaError as error:
            self.error = error
        finally:
            with self.changed:
                self.ended = True
                self.changed.notify_all()

    def give(self, frames: list[GridFrame]) -> None:
        """Takes frames from the thread; where the buffer is full, the oldest ones make room."""
        if not frames:
            return
        with self.changed:
            for frame in frames:
                if len(self.buffer) == self.capacity:
                    oldest = self.buffer.popleft().number
                    # Those that a clip had already, or that the stride leaves out, are no loss.
                    self.counts.dropped_frames += oldest >= max(self.unseen, self.next_start)
                self.buffer.append(frame)
            self.changed.notify_all()

    def __next__(self) -> Clip:
        """The next clip, as soon as it is there.

        Raises:
            StopIteration: the source has ended, or was closed.
            MediaError: it cannot be opened, broke off, or is silent for too long.
        """
        with self.changed:
            while True:
                frames = None if self.reading.stop.is_set() else self.cut()
                if frames:
                    break
                if self.ended or self.reading.stop.is_set():
                    self.end()
                # The thread itself says when a source is silent; this is for devices that it cannot leave.
                left = self.reading.heard_at + 2 * self.live.timeout_seconds - monotonic()
                if left <= 0:
                    raise MediaError(
                        f"{self.reading.shown}: no picture for {2 * self.live.timeout_seconds:g} s; see whether it is "
                        "running, or give a larger timeout_seconds"
                    )
                self.changed.wait(left)
        clip = self.clip_of(frames)
        self.delay_seconds = self.reading.delay_of(float(clip.seconds[-1]))
        return clip

    def end(self) -> None:
        """Raises what ends the iteration."""
        self.counts.left_over_frames += sum(frame.number >= self.unseen for frame in self.buffer)
        self.buffer.clear()
        if self.error is not None and not self.reading.stop.is_set():
            raise self.error
        if not self.complete and not self.reading.stop.is_set():
            raise RuntimeError(f"reading {self.reading.shown} failed in its thread; the reason is printed above")
        raise StopIteration

    def cut(self) -> list[GridFrame] | None:
        """The frames of the next clip, if they are there; what is left before a gap makes no clip and goes."""
        num_frames = self.settings.num_frames
        while self.buffer and self.buffer[0].number < self.next_start:
            self.buffer.popleft()
        while self.buffer:
            first = self.buffer[0].number
            frames = [
                frame
                for place, frame in zip(range(num_frames), self.buffer, strict=False)
                if frame.number == first + place
            ]
            if len(frames) == num_frames:
                self.next_start, self.unseen = first + self.stride_frames, first + num_frames
                return frames
            if len(frames) == len(self.buffer):
                return None
            for frame in frames:
                self.buffer.popleft()
                self.counts.left_over_frames += frame.number >= self.unseen
        return None

    def clip_of(self, frames: list[GridFrame]) -> Clip:
        """Frames as a clip."""
        seconds = [frame.number / self.settings.frames_per_second for frame in frames]
        sound = [frame.sound for frame in frames if frame.sound is not None]
        return Clip(
            torch.stack([frame.frame for frame in frames]),
            torch.tensor(seconds, dtype=torch.float64),
            torch.stack(sound) if len(sound) == len(frames) else None,
            self.reading.shown,
        )

    def close(self) -> None:
        """Ends the reading. A thread that hangs in the system is left to end by itself, within `timeout_seconds`."""
        self.reading.stop.set()
        with self.changed:
            self.changed.notify_all()
        self.thread.join(CLOSING_SECONDS)
