"""Sources for the tests of live watching: footage, and servers that pace it, stall, or break off."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.streams.ffmpeg import HEIGHT, RATE, WIDTH, X264, ffmpeg, numbered_frames

NUM_FRAMES, SOUND_HZ = 60, 44100
SECONDS = NUM_FRAMES / RATE
CHIRP = f"aevalsrc=0.5*sin(2*PI*(200*t+300*t*t)):s={SOUND_HZ}:d={SECONDS}"
SECONDS_PER_BLOCK = 0.02


def make_footage(path: Path, *encoding: str) -> Path:
    """Numbered frames beside a rising tone."""
    source = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(RATE), "-i", "-")
    encoding = encoding or (*X264, "-g", "12", "-bf", "2", "-c:a", "aac", "-b:a", "128k")
    ffmpeg(*source, "-f", "lavfi", "-i", CHIRP, *encoding, path, sent=numbered_frames(NUM_FRAMES).tobytes())
    return path


Send = Callable[[bytes], None]
Script = Callable[[Send, threading.Event], None]


def paced(data: bytes, seconds: float = 0.0, stop_at: float = 1.0, stall: bool = False) -> Script:
    """Sends a share of the bytes evenly over a time; then it ends, or says nothing until the test is over."""

    def script(send: Send, over: threading.Event) -> None:
        num_blocks = max(1, round(seconds / SECONDS_PER_BLOCK))
        size = -(-len(data) // num_blocks) or 1
        for start in range(0, int(len(data) * stop_at), size):
            send(data[start : min(start + size, int(len(data) * stop_at))])
            if seconds:
                over.wait(SECONDS_PER_BLOCK)
        if stall:
            over.wait()

    return script


@contextmanager
def tcp_server(*scripts: Script, head: bytes | None = None) -> Iterator[str]:
    """Serves one connection after another, each with its script; `head` answers an HTTP request first."""
    over, num_served = threading.Event(), [0]
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for script in scripts:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    num_served[0] += 1
                    try:
                        if head is not None:
                            connection.recv(65536)
                            connection.sendall(head)
                        script(connection.sendall, over)
                    except OSError:
                        continue  # nobody listens any more

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def http_server(num_bytes: int, *scripts: Script, kind: str = "video/mp2t") -> AbstractContextManager[str]:
    """The same over HTTP, which promises so many bytes."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {num_bytes}\r\nConnection: close\r\n\r\n"
    return tcp_server(*scripts, head=head.encode())


@contextmanager
def fifo(path: Path, script: Script) -> Iterator[str]:
    """A named pipe into which a thread writes."""
    os.mkfifo(path)
    over = threading.Event()

    def write() -> None:
        try:
            with path.open("wb", buffering=0) as pipe:
                script(lambda data: void(pipe.write(data)), over)
        except BrokenPipeError:
            pass  # nobody reads any more

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield str(path)
    finally:
        over.set()
        # A writer that still waits for a reader is let in.
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        thread.join()
        os.close(reader)


def void(_: object) -> None:
    """Nothing."""
