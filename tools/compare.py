"""Compares a reader with the ffmpeg program, frame by frame: `python -m tools.compare FOLDER [--reader NAME]`."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8
from jsonargparse import ArgumentParser
from torch import Tensor

from streams.errors import MediaError, UserError
from streams.reader import open_video
from streams.settings import ReaderName

# Frames are compared at this size; colour conversions differ by a grey level or two, another frame by more.
HEIGHT, WIDTH = 36, 48
MAX_LEVELS, MAX_SECONDS = 2.0, 2e-3
AS_THEY_COME = ("-fps_mode", "passthrough")


@dataclass(frozen=True)
class Comparison:
    """How far a reader is from the ffmpeg program on one file.

    Attributes:
        num_frames: frames that the reader gives.
        num_expected: frames that ffmpeg shows.
        seconds_off: largest difference of a frame's time.
        levels_off: largest mean difference of a frame, read in order, in grey levels.
        random_off: the same for frames at random.
    """

    num_frames: int
    num_expected: int
    seconds_off: float = 0.0
    levels_off: float = 0.0
    random_off: float = 0.0

    def __str__(self) -> str:
        """One line for people."""
        levels = f"{self.levels_off:.2f} and {self.random_off:.2f} levels off"
        return f"{self.num_frames} frames of {self.num_expected}, {self.seconds_off * 1000:.1f} ms, {levels}"

    @property
    def right(self) -> bool:
        """Whether numbers, times and frames are equal."""
        near = self.seconds_off <= MAX_SECONDS and max(self.levels_off, self.random_off) <= MAX_LEVELS
        return near and self.num_frames == self.num_expected


def times_by_ffmpeg(path: Path, program: str) -> Float64[np.ndarray, " frame"]:
    """Times of the frames that the ffmpeg program shows, since the start of the container.

    Raises:
        MediaError: it shows none.
    """
    # Without -copyts it would count from the start of the tracks that are written.
    command = [program, "-nostdin", "-hide_banner", "-threads", "1", "-copyts", "-i", str(path), "-map", "0:V:0"]
    done = subprocess.run(
        [*command, "-vf", "showinfo", *AS_THEY_COME, "-f", "null", "-"], capture_output=True, check=False
    )
    log = done.stderr.decode(errors="replace")
    seconds = [float(found) for found in re.findall(r"showinfo.* pts_time:([-\d.]+)", log)]
    if not seconds:
        raise MediaError(f"{path}: ffmpeg shows no frame ({(log.splitlines() or ['no reason'])[-1]}); leave it out")
    start = re.search(r"Duration: .*, start: ([-\d.]+)", log)
    return np.array(seconds) - float(start[1] if start else 0)


def frames_by_ffmpeg(
    path: Path, program: str, height: int, width: int
) -> Iterator[UInt8[np.ndarray, "1 3 {height} {width}"]]:
    """Frames that the ffmpeg program shows, one by one, in this size."""
    command = [program, "-nostdin", "-v", "quiet", "-threads", "1", "-i", str(path), "-map", "0:V:0", *AS_THEY_COME]
    # By default ffmpeg rounds colours carelessly: a grey level in the mean, five where colours are fine as grain.
    command += ["-sws_flags", "bilinear+accurate_rnd+full_chroma_int"]
    command += ["-s", f"{width}x{height}", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        while len(content := running.stdout.read(height * width * 3)) == height * width * 3:
            yield np.frombuffer(content, np.uint8).reshape(1, height, width, 3).transpose(0, 3, 1, 2)


def reduced(frames: UInt8[Tensor, "frame 3 rows columns"]) -> Float32[np.ndarray, "frame 3 {HEIGHT} {WIDTH}"]:
    """Frames at the size of the comparison, the whole picture squeezed into it."""
    return torch.nn.functional.interpolate(frames.float(), (HEIGHT, WIDTH), mode="area").numpy()


def compare(path: Path, reader: ReaderName, program: str, every: int = 1, num_random: int = 3) -> Comparison:
    """Reads one file in order and at random, beside the ffmpeg program.

    Args:
        path: the video.
        reader: library that decodes pictures.
        program: the ffmpeg program.
        every: compare the picture of every so many frames in order; numbers and times are compared for all.
        num_random: frames asked at random afterwards.

    Raises:
        MediaError: the reader, or ffmpeg, refuses the file or finds damage.
    """
    with open_video(path, reader) as opened:
        num_frames = len(opened.seconds)
        seconds = times_by_ffmpeg(path, program)
        # A frame that comes after its time is shown by neither.
        in_time = seconds > np.maximum.accumulate(np.concatenate([seconds[:1] - 1, seconds[:-1]]))
        seconds = seconds[in_time]
        if num_frames != len(seconds):
            opened.frames_at([num_frames - 1])
            return Comparison(num_frames, len(seconds))
        height, width = opened.frames_at([0]).shape[-2:]
        chosen = np.random.default_rng(0).integers(0, num_frames, num_random).tolist()
        kept: dict[int, Float32[np.ndarray, "1 3 {HEIGHT} {WIDTH}"]] = {}
        levels_off = 0.0
        shown = compress(frames_by_ffmpeg(path, program, height, width), in_time)
        for index, frame in enumerate(shown):
            if index % every and index not in chosen:
                continue
            expected = reduced(torch.from_numpy(frame.copy()))
            kept.update({index: expected} if index in chosen else {})
            levels_off = max(levels_off, float(np.abs(reduced(opened.frames_at([index])) - expected).mean()))
        random_off = [float(np.abs(reduced(opened.frames_at([index])) - kept[index]).mean()) for index in chosen]
        seconds_off = float(np.abs(opened.seconds - seconds).max())
        return Comparison(num_frames, len(seconds), seconds_off, levels_off, max(random_off))


def files_of(folder: Path) -> Iterator[Path]:
    """The folder's files, or the file itself."""
    yield from sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else [folder]


def main(arguments: list[str] | None = None) -> int:
    """Prints a line for each file and returns the number of files that differ."""
    parser = ArgumentParser(prog="python -m tools.compare", description=__doc__)
    parser.add_argument("folder", type=str, help="folder of videos, or one video")
    parser.add_argument("--reader", type=ReaderName, default="auto", help=f"one of {', '.join(get_args(ReaderName))}")
    parser.add_argument("--ffmpeg", type=str, default="ffmpeg", help="the ffmpeg program")
    parser.add_argument("--every", type=int, default=1, help="compare every so many frames in order")
    given = parser.parse_args(arguments)
    num_wrong = 0
    for path in files_of(Path(given.folder)):
        try:
            found = compare(path, given.reader, given.ffmpeg, given.every)
        except MediaError as error:
            print(f"refused  {str(error).splitlines()[0]}", flush=True)
            continue
        num_wrong += not found.right
        verdict = "right  " if found.right else "WRONG  "
        print(f"{verdict}  {path.name}: {found}", flush=True)
    return num_wrong


if __name__ == "__main__":
    try:
        sys.exit(min(main(), 1))
    except UserError as error:
        sys.exit(str(error))
