"""Sound against picture: files that flash and click at the same instants, read as clips."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import Float32

from tools.bench.ffmpeg import ffmpeg
from tools.bench.footage import AAC, X264, Footage
from tools.bench.peers.all import contenders
from tools.bench.race import Finding
from tools.bench.settings import StreamsSettings

RATE, SAMPLE_HZ, NATIVE_HZ = 25, 16000, 48000
# One flash in every so many frames; prime to the keyframes' distance, so that clips see them at any place.
PERIOD, NUM_FRAMES = 17, 250
BURST_SECONDS = 0.04
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "mp4": ("a.mp4", ()),
    "mkv": ("a.mkv", ()),
    "mpeg-ts": ("a.ts", ()),
    "mp4, cut by an edit list": ("a.mp4", ("-ss", "0.6")),
}
PEERS = ("ours", "torchcodec", "decord")


def sync(footage: Sequence[Footage], settings: StreamsSettings) -> Iterator[Finding]:
    """The largest distance between a flash and its click over clips that contain one, in milliseconds."""
    with TemporaryDirectory() as folder:
        for kind, (name, cut) in KINDS.items():
            path = make_file(Path(folder) / kind, name, cut)
            for contender in contenders(*PEERS):
                try:
                    yield measure(contender.name, next(iter(contender.forms.values())), kind, path)
                except contender.errors as error:
                    reason = str(error).splitlines()[0][:80]
                    yield Finding("sync", kind, contender.name, float("nan"), "ms", f"cannot read it: {reason}")


def make_file(folder: Path, name: str, cut: tuple[str, ...]) -> Path:
    """White frames, and a burst of 1 kHz that begins with each, cut without encoding again where that is asked for."""
    folder.mkdir()
    frames = np.full((NUM_FRAMES, 64, 64), 40, np.uint8)
    frames[::PERIOD] = 220
    click = f"if(lt(mod(t\\,{PERIOD / RATE})\\,{BURST_SECONDS})\\,0.7*sin(2*PI*1000*mod(t\\,{PERIOD / RATE}))\\,0)"
    whole = folder / f"whole{Path(name).suffix}"
    ffmpeg(
        "-f", "rawvideo", "-pix_fmt", "gray", "-s", "64x64", "-r", str(RATE), "-i", "-",
        "-f", "lavfi", "-i", f"aevalsrc='{click}':s={NATIVE_HZ}:d={NUM_FRAMES / RATE}",
        *X264, "-g", "12", *AAC, "-shortest", whole, sent=frames.tobytes(),
    )  # fmt: skip
    if not cut:
        return whole
    ffmpeg(*cut, "-i", whole, "-c", "copy", folder / name)
    return folder / name


def measure(name: str, opener: Any, kind: str, path: Path) -> Finding:
    """Reads clips of a second around the file with one contender."""
    sound = import_module(f"tools.bench.peers.{name}").Sound(path, SAMPLE_HZ)
    errors: list[float] = []
    with closing(opener(path, None)) as pictures:
        last = pictures.num_frames() - RATE
        for start in np.random.default_rng(0).permutation(last)[:24].tolist():
            indices = range(start, start + RATE)
            bright = pictures.clip(indices).numpy().mean(axis=(1, 2, 3)) > 120
            seconds = pictures.seconds(indices)
            samples, first = sound.between(seconds[0], seconds[-1] + 1 / RATE)
            clicks = first + onsets(samples.numpy())
            # Bursts at the clip's ends may be cut.
            flashes = [time for time, lit in zip(seconds, bright, strict=True) if lit]
            flashes = [time for time in flashes if 0.1 < time - seconds[0] < 0.85]
            errors += [1e3 * float(np.abs(clicks - time).min()) if len(clicks) else 1e3 for time in flashes]
    note = f"{len(errors)} flashes, median {np.median(errors):.2f} ms"
    return Finding("sync", kind, name, max(errors), "ms", note)


def onsets(samples: Float32[np.ndarray, " sample"]) -> np.ndarray:
    """Seconds at which bursts begin: peaks of the correlation with the burst that was written."""
    burst = np.sin(2 * np.pi * 1000 * np.arange(round(BURST_SECONDS * SAMPLE_HZ)) / SAMPLE_HZ)
    if len(samples) < len(burst):
        return np.zeros(0)
    likeness = np.correlate(samples, burst, mode="valid")
    found = []
    while likeness.max() > 0.35 * (burst**2).sum():
        peak = int(likeness.argmax())
        found.append(peak / SAMPLE_HZ)
        likeness[max(0, peak - len(burst)) : peak + len(burst)] = 0
    return np.array(found)
