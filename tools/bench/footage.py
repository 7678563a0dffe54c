"""Footage to measure on: one source, written as H.264 and AAC in several sizes and distances of keyframes."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.bench.ffmpeg import write_whole

RATE = 30
X264 = ("-c:v", "libx264", "-preset", "medium", "-crf", "26", "-pix_fmt", "yuv420p", "-bf", "2", "-sc_threshold", "0")
AAC = ("-c:a", "aac", "-b:a", "128k", "-ar", "48000", "-ac", "2")
# Noise under a falling tone, stereo.
SOUND = "anoisesrc=color=pink:r=48000:seed=1:a=0.2[noise];aevalsrc='0.3*sin(2*PI*(200+100*sin(t))*t)':s=48000[tone]"
SOUND += ";[noise][tone]amerge=inputs=2[sound]"


@dataclass(frozen=True)
class Footage:
    """One file.

    Attributes:
        name: what it is, for tables.
        path: H.264 with AAC.
        silent: the same pictures without the sound.
        rows: height of a frame.
        gop: frames from one keyframe to the next.
    """

    name: str
    path: Path
    silent: Path
    rows: int
    gop: int


def columns_of(rows: int) -> int:
    """Columns of about 16/9 of the rows, such that the middle square begins at an even column for everyone."""
    return rows + 4 * round(rows * 7 / 9 / 4)


def octave(size: str, seed: int, label: str) -> str:
    """One frame of noise of this size, smoothly enlarged."""
    noise = f"noise=c0s=100:c0f=u:all_seed={seed}"
    return f"color=gray:s={size}:r={RATE}:d=0.03,format=yuv420p,{noise},scale=2560x1440:flags=bicubic[{label}];"


def synthetic() -> str:
    """The filter graph of 1080p pictures whose bit rates are those of natural video.

    A texture with about the spectrum of natural pictures is panned with the tremble of a hand; coloured light wanders
    over it; two objects move in front, one of them growing and with fine detail; on top is grain, new in every frame.
    Colours are smoother than brightness, as those of cameras are.
    """
    octaves = octave("20x12", 1, "a") + octave("64x36", 2, "b") + octave("160x90", 3, "c") + octave("480x270", 4, "d")
    still = (
        "[a][b]blend=c0_expr='128+1.4*(A-128)+0.8*(B-128)'[ab];[c][d]blend=c0_expr='128+0.4*(A-128)+0.2*(B-128)'[cd];"
        "[ab][cd]blend=c0_expr='clip(A+B-128,16,235)'[still];"
    )
    ground = (
        f"[still]loop=loop=-1:size=1,setpts=N/{RATE}/TB,fps={RATE},crop=1920:1080:"
        "x='320+250*sin(n/67)+4*sin(n/7)':y='180+120*sin(n/91)+3*sin(n/9)'[ground];"
        f"gradients=s=640x360:r={RATE}:speed=0.02:nb_colors=6:seed=5,scale=1920x1080,format=yuv420p[light];"
        "[ground][light]blend=c0_mode=softlight:c1_mode=average:c2_mode=average[lit];"
    )
    objects = (
        f"mandelbrot=s=640x360:r={RATE}:end_pts=900:maxiter=300,scale=800x450,format=yuv420p,"
        "eq=saturation=0.5,boxblur=1:1:3:1,"
        "split[large][other];[other]boxblur=3,hflip,scale=400:226[small];"
        "[lit][large]overlay=x='560+450*sin(n/53)':y='310+240*cos(n/71)'[one];"
        "[one][small]overlay=x='760+650*cos(n/37)':y='410+340*sin(n/43)',noise=c0s=3:c0f=t+u:all_seed=6"
    )
    return octaves + still + ground + objects + ",setsar=1,format=yuv420p[picture]"


def joined(num_videos: int) -> str:
    """The filter graph that puts real videos one after another at 1080p."""
    parts = [
        f"[{number}:v:0]scale=1920:1080:force_original_aspect_ratio=increase,crop=1920:1080,fps={RATE},setsar=1,"
        f"format=yuv420p[v{number}];"
        for number in range(num_videos)
    ]
    labels = "".join(f"[v{number}]" for number in range(num_videos))
    return "".join(parts) + f"{labels}concat=n={num_videos},loop=loop=-1:size=32767[picture]"


def make_source(folder: Path, seconds: float, videos: Sequence[Path]) -> Path:
    """The nearly lossless source of all files: synthetic, or an equal part of each of the given videos."""
    key = hashlib.sha256(repr([synthetic(), SOUND, seconds, list(map(str, videos))]).encode()).hexdigest()[:10]
    inputs = [part for path in videos for part in ("-t", f"{seconds / len(videos):.3f}", "-i", path)]
    graph = (joined(len(videos)) if videos else synthetic()) + ";" + SOUND
    return write_whole(
        folder / f"{'real' if videos else 'synthetic'}_{key}" / "source.mkv",
        *inputs, "-filter_complex", graph, "-map", "[picture]", "-map", "[sound]", "-t", f"{seconds:.3f}", "-r",
        str(RATE), "-c:v", "libx264", "-preset", "ultrafast", "-crf", "8", "-g", "15", "-c:a", "pcm_s16le",
    )  # fmt: skip


def make_footage(
    folder: Path, rows: Sequence[int], gops: Sequence[int], seconds: float, videos: Sequence[Path] = ()
) -> Iterator[Footage]:
    """Makes one file after the other; those that are there are kept.

    Args:
        folder: where they are kept, in a folder named after what they are made of.
        rows: heights.
        gops: frames from one keyframe to the next.
        seconds: length of each.
        videos: real videos of which to make them; synthetic if empty.
    """
    source = make_source(folder, seconds, videos)
    for height in rows:
        columns = columns_of(height)
        for gop in gops:
            path, silent = (source.with_name(f"{height}p_gop{gop}{end}.mp4") for end in ("", "_silent"))
            keys = ("-g", str(gop), "-keyint_min", str(gop))
            scaled = ("-vf", f"scale={columns}:{height}:flags=area,setsar=1")
            write_whole(path, "-i", source, *scaled, *X264, *keys, *AAC, "-movflags", "+faststart")
            write_whole(silent, "-i", path, "-c", "copy", "-an")
            yield Footage(f"{height}p GOP {gop}", path, silent, height, gop)


def bits_per_second(footage: Footage, seconds: float) -> float:
    """Rate of the pictures alone."""
    return footage.silent.stat().st_size * 8 / seconds
