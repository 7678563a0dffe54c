"""Reading a live source: connecting, connecting again, and putting what comes on one clock and on the run's grid."""

from collections.abc import Callable
from functools import partial
from math import ceil
from threading import Event
from time import monotonic

from torch import Tensor

from streams.errors import MediaError
from streams.live_grid import GridFrame, LiveCounts, LiveGrid
from streams.pyav.live import NETWORK, LiveFeed, Picture, Sound, hide_password, kind_of
from streams.settings import ClipSettings, LiveSettings

LONGEST_BACKOFF_SECONDS = 30.0
# How fast the delay forgets the promptest picture: a source whose clock runs slow is not called late after hours.
CLOCK_DRIFT = 2e-4


class LiveReading:
    """What the thread of a `LiveSource` does.

    Attributes:
        counts: what came, and what was lost on the way.
        shown: the address without a password.
        stop: set to end the reading.
        heard_at: when the source was last heard of, on the monotonic clock; in the future while it is let alone.
    """

    def __init__(
        self, address: str, settings: ClipSettings, live: LiveSettings, give: Callable[[list[GridFrame]], None]
    ) -> None:
        """Nothing is opened yet.

        Args:
            address: see `LiveSource`.
            settings: how clips are sampled.
            live: how the source is watched.
            give: takes the frames of the grid as they are ready.

        Raises:
            MediaError: there is no such device or file, or the kind of address is unknown.
        """
        self.kind, self.shown = kind_of(address), hide_password(address)
        self.address, self.settings, self.live, self.give = address, settings, live, give
        self.counts, self.stop, self.heard_at = LiveCounts(), Event(), monotonic()
        self.grid = LiveGrid(settings, live.sound_lag_seconds, self.counts)
        self.speed = live.speed if self.kind == "file" else 1.0
        self.connected = self.has_sound = False
        self.offset_frames = 0  # what is added to a connection's times, so that the clock never jumps back
        self.last_seconds = self.last_arrival = 0.0
        self.first_due: float | None = None
        self.promptest = float("inf")

    def run(self) -> None:
        """Reads until the source ends, or `stop` is set.

        Raises:
            MediaError: it cannot be opened, or broke off once too often.
        """
        num_failures = 0
        while not self.stop.is_set():
            was_connected, frames_before = self.connected, self.counts.frames
            self.heard_at = monotonic()
            try:
                self.read_connection()
                if self.kind not in NETWORK or not self.live.endless:
                    return
                error = MediaError(f"{self.shown}: has ended, and does not begin again; see whether it is running")
            except MediaError as found:
                error = found
            if self.counts.frames > frames_before:
                num_failures = 0
            # What was never there is more likely a wrong address than a broken line.
            retry = self.kind in NETWORK and (was_connected or self.connected)
            if not retry or num_failures >= self.live.num_reconnects:
                raise error
            wait = min(self.live.backoff_seconds * 2**num_failures, LONGEST_BACKOFF_SECONDS)
            self.heard_at = monotonic() + wait
            self.stop.wait(wait)
            num_failures += 1
            self.counts.reconnects += 1

    def read_connection(self) -> None:
        """Reads one connection to its end, and gives all that came."""
        with LiveFeed(self.address, self.live, self.settings.sample_hz, self.stop) as feed:
            self.has_sound = feed.has_sound
            again, damaged_before = self.connected, self.counts.damaged_frames
            self.connected = True
            if not again:
                self.grid.begin(feed.has_sound)
            try:
                for part in feed.parts():
                    if isinstance(part, Sound):
                        # Its place is known once there is a picture.
                        if not again:
                            self.grid.sound(part.start + self.grid.start_of(self.offset_frames), part.samples)
                    else:
                        self.take(part, again, partial(feed.scaled, part, self.settings.height, self.settings.width))
                        again = False
                    self.give(self.grid.ready())
            finally:
                self.counts.damaged_frames = damaged_before + feed.num_damaged
                self.end_clip()

    def end_clip(self) -> None:
        """Gives what is left before the clock begins anew."""
        self.grid.interrupt()
        self.give(self.grid.ready(final=True))

    def take(self, picture: Picture, again: bool, scaled: Callable[[], Tensor]) -> None:
        """Puts a picture on the grid, after a gap where it is the first of a new connection or its time jumps."""
        first = self.promptest == float("inf")
        step = picture.seconds + self.offset_frames / self.settings.frames_per_second - self.last_seconds
        if again or (not first and step < -self.live.gap_seconds):
            self.begin_again(picture.seconds)
        elif not first and step <= 0:
            self.counts.late_frames += 1
            return
        elif not first and step > self.live.gap_seconds:
            self.grid.interrupt()
            self.counts.gaps += 1
        seconds = picture.seconds + self.offset_frames / self.settings.frames_per_second
        if self.kind == "file":
            self.pace(seconds)
        self.heard_at = now = monotonic()
        passed = now - self.last_arrival
        self.promptest = min(self.promptest + CLOCK_DRIFT * passed, now - seconds / self.speed)
        self.last_seconds, self.last_arrival = seconds, now
        self.grid.picture(seconds, scaled)

    def begin_again(self, seconds: float) -> None:
        """Sets the clock on, by as much as passed since the last picture; one instant is left out at least."""
        self.end_clip()
        rate, free = self.settings.frames_per_second, self.grid.next + 1
        self.grid.begin(self.has_sound, free)
        place = max(free / rate, self.last_seconds + monotonic() - self.last_arrival)
        self.offset_frames = ceil((place - seconds) * rate)
        self.counts.gaps += 1

    def pace(self, seconds: float) -> None:
        """Waits until a picture of a file is due."""
        due = seconds / self.speed
        if self.first_due is None:
            self.first_due = monotonic() - due
        self.stop.wait(max(0.0, self.first_due + due - monotonic()))

    def delay_of(self, seconds: float) -> float:
        """How much longer it is since this time of the source than when the promptest picture came, in seconds."""
        return max(0.0, monotonic() - self.promptest - seconds / self.speed)
