"""The independent reference of the reader tests: the ffmpeg program makes odd files and says what is in them."""

import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np

HEIGHT, WIDTH, NUM_FRAMES, RATE = 64, 96, 60, 25


def ffmpeg(*arguments: str | Path, sent: bytes | None = None) -> tuple[bytes, str]:
    """Runs ffmpeg; returns what it wrote to stdout and stderr."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin" if sent is None else "-y", "-y", *map(str, arguments)]
    done = subprocess.run(command, input=sent, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    return done.stdout, done.stderr.decode(errors="replace")


def numbered_frames(num_frames: int = NUM_FRAMES) -> np.ndarray:
    """Frames (frame, height, width, 3) that carry their number as eight dark or bright bars over colour."""
    frames = np.full((num_frames, HEIGHT, WIDTH, 3), (60, 120, 180), dtype=np.uint8)
    for number in range(num_frames):
        bits = [(number >> bit) & 1 for bit in range(8)]
        frames[number, : HEIGHT // 2] = np.repeat(np.array(bits, dtype=np.uint8) * 200 + 20, WIDTH // 8)[None, :, None]
    return frames


def number_of(frame: np.ndarray) -> int:
    """Number that a frame (3, height, width) carries."""
    bars = frame[:, 4 : HEIGHT // 2 - 4].mean(axis=(0, 1)).reshape(8, -1)[:, 3:-3].mean(axis=1)
    return sum(1 << bit for bit, value in enumerate(bars) if value > 120)


def reference(path: Path, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames (frame, 3, height, width) and their seconds as the ffmpeg program sees them."""
    output, log = ffmpeg(
        "-i", path, "-map", "0:v:0", "-vf", "showinfo", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt",
        "rgb24", "-",
    )  # fmt: skip
    seconds = [float(found) for found in re.findall(r"showinfo.* pts_time:([-\d.]+)", log)]
    frames = np.frombuffer(output, np.uint8).reshape(-1, height, width, 3).transpose(0, 3, 1, 2)
    return frames, np.array(seconds)


def reference_sound(path: Path, sample_hz: int) -> np.ndarray:
    """Mono sound from the start of the container on, as the ffmpeg program decodes it."""
    output, _ = ffmpeg(
        "-i", path, "-map", "0:a:0", "-af", "aresample=async=1:first_pts=0", "-ac", "1", "-ar", str(sample_hz), "-f",
        "f32le", "-",
    )  # fmt: skip
    return np.frombuffer(output, np.float32)


X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "12", "-threads", "1")
DROPS = r"select=not(eq(mod(n\,7)\,3))*not(between(n\,30\,44))"
# Name of the file, and how ffmpeg encodes it.
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "constant": ("a.mp4", (*X264, "-g", "12", "-bf", "0")),
    "long_gop": ("a.mp4", (*X264, "-g", "250", "-bf", "3")),
    "open_gop": ("a.mp4", (*X264, "-x264-params", "open-gop=1:keyint=10:min-keyint=10:bframes=3:scenecut=0")),
    "variable_rate": ("a.mp4", (*X264, "-g", "12", "-vf", DROPS, "-fps_mode", "vfr")),
    "fragmented": ("a.mp4", (*X264, "-g", "12", "-bf", "3", "-movflags", "frag_keyframe+empty_moov")),
    "transport": ("a.ts", (*X264, "-g", "12", "-bf", "3")),
    "matroska": ("a.mkv", (*X264, "-g", "15", "-bf", "3")),
    "hevc": ("a.mp4", ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "keyint=15:bframes=3:log-level=1")),
    "mpeg4_avi": ("a.avi", ("-c:v", "mpeg4", "-q:v", "2", "-g", "12")),
    "mpeg4_mkv": ("a.mkv", ("-c:v", "mpeg4", "-q:v", "2", "-g", "12", "-bf", "2")),
    "mpeg2_program": ("a.mpg", ("-c:v", "mpeg2video", "-q:v", "2", "-g", "12", "-bf", "2")),
    "vp9": ("a.webm", ("-c:v", "libvpx-vp9", "-crf", "20", "-deadline", "realtime", "-cpu-used", "8", "-g", "20")),
}
DERIVED = ("late_picture", "edit_list", "rotated")


def make_video(kind: str, folder: Path) -> Path:
    """Makes one kind of file out of numbered frames, with a tone beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind in DERIVED:
        return derive(kind, folder)
    name, encoding = KINDS[kind]
    source = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(RATE), "-i", "-")
    ffmpeg(*source, *encoding, folder / name, sent=numbered_frames().tobytes())
    return folder / name


def derive(kind: str, folder: Path) -> Path:
    """Kinds that are made of another file without encoding it again."""
    plain = make_video("long_gop", folder / "plain")
    if kind == "rotated":
        ffmpeg("-display_rotation", "90", "-i", plain, "-c", "copy", folder / "a.mp4")
        return folder / "a.mp4"
    if kind == "edit_list":
        ffmpeg("-ss", "0.6", "-i", plain, "-c", "copy", folder / "a.mp4")
        return folder / "a.mp4"
    tone = ("-f", "lavfi", "-i", "sine=frequency=440:duration=3:sample_rate=16000")
    ffmpeg(*tone, "-itsoffset", "0.5", "-i", plain, "-map", "1:v", "-map", "0:a", "-c:v", "copy", folder / "a.mkv")
    return folder / "a.mkv"
