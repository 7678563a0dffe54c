"""A contender in a process of its own, which is stopped while it is not asked.

Decord's threads take a whole core as long as a file is open, also while nobody asks for frames: in one process that
would be counted for whoever runs at the time.
"""

import atexit
import os
import signal
import time
from collections.abc import Sequence
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from tools.bench.peers.all import contenders
from tools.bench.race import Part


class Server:
    """The process; it holds one open file."""

    def __init__(self, name: str) -> None:
        """Starts it for a contender."""
        context = get_context("spawn")
        self.here, there = context.Pipe()
        self.process = context.Process(target=serve, args=(there, name), daemon=True)
        self.process.start()
        there.close()
        # At its exit Python waits for a process that, stopped, would not hear that it is to end.
        atexit.register(self.process.kill)
        self.here.recv()
        self.wake(signal.SIGSTOP)

    def ask(self, *question: Any) -> tuple[int, float]:
        """Opens a file, reads a clip or closes the file; tells a number of frames and CPU-seconds."""
        self.wake(signal.SIGCONT)
        self.here.send(question)
        answer = self.here.recv()
        self.wake(signal.SIGSTOP)
        return answer

    def wake(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        os.kill(self.process.pid or 0, number)


@cache
def server_of(name: str) -> Server:
    """The one process of a contender."""
    return Server(name)


class RemotePictures:
    """A file that is open in the process of a contender; only costs come back, no frames."""

    def __init__(self, name: str, form: str, path: Path, side: int | None) -> None:
        """Opens the file, and closes the one that was open before."""
        self.server = server_of(name)
        self.frames, self.owed_seconds = self.server.ask("open", form, path, side)

    def num_frames(self) -> int:
        """Frames that the library says the file has."""
        return self.frames

    def clip(self, indices: Sequence[int]) -> Part:
        """Reads frames; tells how many and what they cost. The first cost includes that of opening the file."""
        num_frames, seconds = self.server.ask("clip", list(indices))
        seconds, self.owed_seconds = seconds + self.owed_seconds, 0.0
        return Part(num_frames, seconds)

    def close(self) -> None:
        """Frees the decoder."""
        self.server.ask("close")


def serve(connection: Connection, name: str) -> None:
    """What the process does."""
    torch.set_num_threads(1)
    [contender] = contenders(name)
    pictures: Any = None
    connection.send(None)
    while True:
        try:
            what, *arguments = connection.recv()
        except EOFError:
            return
        begun, num_frames = time.process_time(), 0
        if what == "clip":
            assert pictures is not None, "a clip before a file was opened"
            num_frames = len(pictures.clip(*arguments))
        elif pictures is not None:
            pictures.close()
            pictures = None
        if what == "open":
            begun = time.process_time()
            form, path, side = arguments
            pictures = contender.forms[form](path, side)
            num_frames = pictures.num_frames()
        connection.send((num_frames, time.process_time() - begun))
