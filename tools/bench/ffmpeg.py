"""The ffmpeg program: it makes the footage, and its frames are the truth."""

import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from streams.errors import UserError


@cache
def program() -> str:
    """Where ffmpeg is: the one of the package imageio-ffmpeg, or else the system's.

    Raises:
        UserError: there is none.
    """
    try:
        import imageio_ffmpeg
    except ImportError:
        found = shutil.which("ffmpeg")
        if found is None:
            raise UserError("the benchmark needs the ffmpeg program: pip install imageio-ffmpeg") from None
        return found
    return imageio_ffmpeg.get_ffmpeg_exe()


def ffmpeg(*arguments: str | Path, sent: bytes | None = None) -> bytes:
    """Runs ffmpeg, with `sent` as its input; returns what it wrote to stdout.

    Raises:
        UserError: it fails; the message ends with ffmpeg's own.
    """
    done = subprocess.run(
        [program(), "-v", "error", "-y", *map(str, arguments)],
        input=sent,
        stdin=subprocess.DEVNULL if sent is None else None,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise UserError(f"ffmpeg failed: {done.stderr.decode(errors='replace').strip()[-1000:]}")
    return done.stdout


def version() -> str:
    """The first line of `ffmpeg -version`."""
    done = subprocess.run([program(), "-version"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0]


def true_frames(path: Path, height: int, width: int, num_frames: int) -> UInt8[np.ndarray, "frame 3 height width"]:
    """The first frames at full size, with colours converted as exactly as ffmpeg can."""
    flags = "accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"
    output = ffmpeg(
        "-i", path, "-map", "0:v:0", "-fps_mode", "passthrough", "-frames:v", str(num_frames), "-vf",
        f"scale=flags={flags},format=rgb24", "-f", "rawvideo", "-",
    )  # fmt: skip
    return np.frombuffer(output, np.uint8).reshape(-1, height, width, 3).transpose(0, 3, 1, 2)


def write_whole(path: Path, *arguments: str | Path, sent: bytes | None = None) -> Path:
    """Lets ffmpeg write a file, which appears under its name only when it is complete."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".partial.{path.name}")
        ffmpeg(*arguments, partial, sent=sent)
        partial.replace(path)
    return path
