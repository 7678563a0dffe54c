"""A rollout as a video that is written while it goes on, for as long as somebody reads it."""

import os
import sys
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from jaxtyping import Int
from torch import Tensor

from streams.clip import to_uint8
from streams.pyav.writer import Sink, VideoWriter
from worldmodel.errors import SettingsError
from worldmodel.evaluation.films import CodedModel, watchable
from worldmodel.rollouts.sound_blocks import SoundBlocks

FRAMES_AT_ONCE = 4  # that are decoded and written together
MOST_WAITING = 4  # such groups, before the rollout waits for those who show it


def pipe_frames(coded: CodedModel, codes: Iterable[Int[Tensor, " code"]], target: Sink, device: torch.device) -> int:
    """Writes frames and their sound as MPEG-TS; returns how many were written, fewer if the reader went away.

    A thread of its own decodes and writes them, while the next ones are imagined. After Ctrl-C what has come is written
    to its end.

    Raises:
        OSError: it cannot be written (a full disk, say).
    """
    screen = Screen(coded, target, device)
    group: list[Tensor] = []
    with ThreadPoolExecutor(1, "screen") as thread:
        waiting: deque[Future[None]] = deque()
        try:
            try:
                for frame in codes:
                    group.append(frame)
                    if len(group) == FRAMES_AT_ONCE:
                        full, group = torch.stack(group), []
                        waiting.append(thread.submit(screen.show, full))
                    if len(waiting) > MOST_WAITING:
                        waiting[0].result()
                        waiting.popleft()
            except KeyboardInterrupt:
                pass  # it mostly comes while the rollout waits for those who show it
            if group:
                waiting.append(thread.submit(screen.show, torch.stack(group)))
            waiting.append(thread.submit(screen.finish))
            for each in waiting:
                each.result()
        except BrokenPipeError:
            pass
    return screen.num_shown


class Stdout:
    """The bytes of stdout, past Python's buffer: what it still held at the end could fail when nobody catches it."""

    def __init__(self) -> None:
        """Nothing was written.

        Raises:
            SettingsError: stdout is closed, or a terminal.
        """
        # Python has none where it was closed when the program began.
        if sys.stdout is None or sys.stdout.closed:
            raise SettingsError("out=- writes a video to stdout, which is closed: pipe it into a player or a file")
        if sys.stdout.isatty():
            raise SettingsError("out=- writes a video to the terminal: pipe it into a player (| ffplay -) or a file")
        sys.stdout.flush()
        self.file = sys.stdout.fileno()

    def write(self, data: bytes, /) -> int:
        """Writes all of it."""
        left = memoryview(data)
        while left:
            left = left[os.write(self.file, left) :]
        return len(data)


class Screen:
    """Decodes codes of frames and writes what they look and sound like."""

    def __init__(self, coded: CodedModel, target: Sink, device: torch.device) -> None:
        """Nothing was shown; there is a track of sound where the model hears, whether its prompt had any or not."""
        clips, self.picture, self.device, self.num_shown = coded.picture.clips, coded.picture, device, 0
        self.sound = SoundBlocks(coded.sound) if coded.sound is not None else None
        size, hertz = (clips.height, clips.width), None if self.sound is None else clips.sample_hz
        self.writer = VideoWriter(
            target, "mpegts", size, clips.frames_per_second, hertz, factor=watchable(*size), live=True
        )

    def show(self, codes: Int[Tensor, "frame code"]) -> None:
        """Writes more frames."""
        num_picture = self.picture.pyramid.num_codes
        frames = to_uint8(self.picture.decode(codes[None, :, :num_picture].to(self.device)))[0].cpu()
        self.writer.add_frames(frames)
        if self.sound is not None:
            self.writer.add_sound(self.sound.add(codes[:, num_picture:]))
        self.num_shown += len(frames)

    def finish(self) -> None:
        """Writes what waits."""
        if self.sound is not None:
            self.writer.add_sound(self.sound.finish())
        self.writer.finish()
        self.writer.container.close()
