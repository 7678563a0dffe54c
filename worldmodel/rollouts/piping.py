"""A rollout as a video that is written while it goes on, for as long as somebody reads it."""

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from jaxtyping import Int
from torch import Tensor

from streams.clip import to_uint8
from streams.pyav.writer import Sink, VideoWriter
from worldmodel.evaluation.films import CodedModel, watchable
from worldmodel.rollouts.sound_blocks import SoundBlocks

FRAMES_AT_ONCE = 4  # that are decoded and written together
MOST_WAITING = 4  # such groups, before the rollout waits for those who show it


def pipe_frames(
    coded: CodedModel, codes: Iterable[Int[Tensor, " code"]], target: Sink, with_sound: bool, device: torch.device
) -> int:
    """Writes frames and their sound as MPEG-TS; returns how many were written, fewer if the reader went away.

    A thread of its own decodes and writes them, while the next ones are imagined.
    """
    screen = Screen(coded, target, with_sound, device)
    group: list[Tensor] = []
    with ThreadPoolExecutor(1, "screen") as thread:
        waiting: deque[Future[None]] = deque()
        try:
            for frame in codes:
                group.append(frame)
                if len(group) == FRAMES_AT_ONCE:
                    waiting.append(thread.submit(screen.show, torch.stack(group)))
                    group = []
                if len(waiting) > MOST_WAITING:
                    waiting.popleft().result()
            if group:
                waiting.append(thread.submit(screen.show, torch.stack(group)))
            waiting.append(thread.submit(screen.finish))
            for each in waiting:
                each.result()
        except BrokenPipeError:
            pass
    return screen.num_shown


class Screen:
    """Decodes codes of frames and writes what they look and sound like."""

    def __init__(self, coded: CodedModel, target: Sink, with_sound: bool, device: torch.device) -> None:
        """Nothing was shown; without sound there is no track for it."""
        clips, self.picture, self.device, self.num_shown = coded.picture.clips, coded.picture, device, 0
        self.sound = SoundBlocks(coded.sound) if coded.sound is not None and with_sound else None
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
