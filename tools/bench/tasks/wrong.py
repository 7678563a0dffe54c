"""Wrong frames over all containers of the tests, in order and at random, for everyone.

Each library runs in a process of its own with a time limit per file, since some hang or crash.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from jaxtyping import UInt8

from streams.errors import UserError
from tools.bench.footage import Footage
from tools.bench.peers.all import contenders
from tools.bench.peers.contender import Pictures
from tools.bench.race import Finding
from tools.bench.settings import StreamsSettings

LIMIT_SECONDS = 60.0
START_SECONDS = 120.0
QUICK_KINDS = 2


def wrong_frames(footage: Sequence[Footage], settings: StreamsSettings) -> Iterator[Finding]:
    """Counts frames that are not those which the ffmpeg program shows at the same place."""
    with TemporaryDirectory() as folder:
        files = make_files(Path(folder), QUICK_KINDS if settings.quick else None)
        for contender in contenders():
            yield from check_all(contender.name, files)


def make_files(folder: Path, limit: int | None) -> dict[str, Path]:
    """The odd files of the tests, each with the frames of the ffmpeg program beside it."""
    try:
        from tests.streams.ffmpeg import DERIVED, KINDS, make_video
    except ImportError as error:
        raise UserError(
            f"wrong_frames needs the tests' files ({error}): run it from a checkout with dev tools"
        ) from error
    files = {}
    for kind in [*KINDS, *DERIVED][:limit]:
        path = make_video(kind, folder / kind)
        np.save(path.with_suffix(".npy"), frames_of(path))
        files[kind] = path
    return files


def frames_of(path: Path) -> UInt8[np.ndarray, "frame 3 height width"]:
    """All frames that the ffmpeg program shows, upright."""
    from tests.streams.ffmpeg import HEIGHT, WIDTH, ffmpeg

    shown = ("-map", "0:v:0", "-fps_mode", "passthrough")
    _, log = ffmpeg("-i", path, *shown, "-vf", "showinfo", "-frames:v", "1", "-f", "null", "-")
    width, height = map(int, log.split(" s:", 1)[1].split(" ", 1)[0].split("x")) if " s:" in log else (WIDTH, HEIGHT)
    output, _ = ffmpeg("-i", path, *shown, "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return np.frombuffer(output, np.uint8).reshape(-1, height, width, 3).transpose(0, 3, 1, 2)


def check_all(name: str, files: dict[str, Path]) -> Iterator[Finding]:
    """Checks all files in a child process; another one takes over where it hangs or dies."""
    left = list(files.items())
    while left:
        here, there = get_context("spawn").Pipe()
        process = get_context("spawn").Process(target=serve, args=(there, name, left), daemon=True)
        process.start()
        there.close()
        limit = START_SECONDS
        while left:
            try:
                if not here.poll(limit):
                    note = f"hangs for more than {limit:g} s"
                    break
                answer = here.recv()
            except EOFError:
                note = "ends the process"
                break
            limit = LIMIT_SECONDS
            if answer is not None:
                kind, _ = left.pop(0)
                yield Finding("wrong_frames", kind, name, *answer)
        else:
            process.join()
            return
        process.kill()
        process.join()
        kind, path = left.pop(0)
        yield Finding("wrong_frames", kind, name, float(2 * len(np.load(path.with_suffix(".npy")))), "frames", note)


def serve(answers: Connection, name: str, files: list[tuple[str, Path]]) -> None:
    """What the child does: first None when it has started, then (count, unit, note) for each file."""
    torch.set_num_threads(1)
    # What libraries complain of on their own would drown the progress.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    contender = contenders(name)[0]
    opener = next(iter(contender.forms.values()))
    answers.send(None)
    for _, path in files:
        truth = np.load(path.with_suffix(".npy"))
        try:
            with closing(opener(path, None)) as pictures:
                in_order, at_random = count_wrong(pictures, truth)
            answers.send((float(in_order + at_random), "frames", f"{in_order} in order, {at_random} at random"))
        except contender.errors as error:
            reason = (str(error) or type(error).__name__).splitlines()[0][:80]
            answers.send((float(2 * len(truth)), "frames", f"cannot read it: {reason}"))


def count_wrong(pictures: Pictures, truth: UInt8[np.ndarray, "frame 3 height width"]) -> tuple[int, int]:
    """Wrong frames in order, and of as many at random."""
    num_frames = len(truth)
    readable = range(min(num_frames, pictures.num_frames()))
    missing = num_frames - len(readable)
    in_order = [pictures.clip(readable[start : start + 16]).numpy() for start in range(0, len(readable), 16)]
    wrong = missing + sum(map(int, are_wrong(np.concatenate(in_order), readable, truth)))
    generator, wrong_at_random = np.random.default_rng(0), missing
    for length, stride in ((1, 1), (5, 1), (5, 3)):
        for _ in range(-(-len(readable) // (3 * length))):
            start = int(generator.integers(max(1, len(readable) - (length - 1) * stride)))
            places = range(start, min(start + (length - 1) * stride + 1, len(readable)), stride)
            wrong_at_random += sum(are_wrong(pictures.clip(places).numpy(), places, truth))
    return wrong, wrong_at_random


def are_wrong(
    frames: UInt8[np.ndarray, "read 3 rows columns"],
    places: Sequence[int],
    truth: UInt8[np.ndarray, "frame 3 height width"],
) -> list[bool]:
    """Which frames are nearer to another frame of the truth than to that of their place, or do not stand upright."""
    if len(frames) != len(places) or frames.shape[1:] != truth.shape[1:]:
        return [True] * len(places)
    wide = truth.astype(np.int16)
    nearest = [int(np.abs(wide - frame).mean(axis=(1, 2, 3)).argmin()) for frame in frames]
    return [near != place for near, place in zip(nearest, places, strict=True)]
