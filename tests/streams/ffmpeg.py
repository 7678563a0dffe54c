"""The independent reference of the reader tests: the ffmpeg program makes odd files and says what is in them."""

import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np

HEIGHT, WIDTH, NUM_FRAMES, RATE = 64, 96, 60, 25
COLOURS = ((60, 120, 180), (190, 60, 50), (50, 160, 70), (210, 180, 40))


def ffmpeg(*arguments: str | Path, sent: bytes | None = None) -> tuple[bytes, str]:
    """Runs ffmpeg; returns what it wrote to stdout and stderr."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin" if sent is None else "-y", "-y", *map(str, arguments)]
    done = subprocess.run(command, input=sent, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    return done.stdout, done.stderr.decode(errors="replace")


def numbered_frames(num_frames: int = NUM_FRAMES) -> np.ndarray:
    """Frames (frame, height, width, 3) that carry their number as eight dark or bright bars over four colours."""
    frames = np.empty((num_frames, HEIGHT, WIDTH, 3), dtype=np.uint8)
    frames[:] = np.repeat(np.array(COLOURS, dtype=np.uint8), WIDTH // len(COLOURS), axis=0)
    for number in range(num_frames):
        bits = [(number >> bit) & 1 for bit in range(8)]
        frames[number, : HEIGHT // 2] = np.repeat(np.array(bits, dtype=np.uint8) * 200 + 20, WIDTH // 8)[None, :, None]
    return frames


def number_of(frame: np.ndarray) -> int:
    """Number that a frame (3, height, width) carries."""
    bars = frame[:, 4 : HEIGHT // 2 - 4].mean(axis=(0, 1)).reshape(8, -1)[:, 3:-3].mean(axis=1)
    return sum(1 << bit for bit, value in enumerate(bars) if value > 120)


def reference(path: Path, height: int, width: int, *options: str) -> tuple[np.ndarray, np.ndarray]:
    """Frames (frame, 3, height, width) and their seconds as the ffmpeg program sees them."""
    # Without -copyts it would count from the start of the tracks that are written, not from that of the container.
    output, log = ffmpeg(
        "-copyts", "-i", path, "-map", "0:v:0", "-vf", "showinfo", "-fps_mode", "passthrough", "-f", "rawvideo",
        "-pix_fmt", "rgb24", *options, "-",
    )  # fmt: skip
    seconds = [float(found) for found in re.findall(r"showinfo.* pts_time:([-\d.]+)", log)]
    start = re.search(r"Duration: .*, start: ([-\d.]+)", log)
    assert start is not None, log
    frames = np.frombuffer(output, np.uint8).reshape(-1, height, width, 3).transpose(0, 3, 1, 2)
    return frames, np.array(seconds) - float(start[1])


def reference_sound(path: Path, sample_hz: int) -> np.ndarray:
    """Mono sound from the start of the container on, as the ffmpeg program decodes it."""
    output, _ = ffmpeg(
        "-i", path, "-map", "0:a:0", "-af", "aresample=async=1:first_pts=0", "-ac", "1", "-ar", str(sample_hz), "-f",
        "f32le", "-",
    )  # fmt: skip
    return np.frombuffer(output, np.float32)


X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "12", "-threads", "1")
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-crf", "12", "-x265-params")
VP9 = ("-c:v", "libvpx-vp9", "-crf", "20", "-b:v", "0", "-deadline", "realtime", "-cpu-used", "8", "-g", "20")
AV1 = ("-c:v", "libaom-av1", "-crf", "20", "-cpu-used", "8", "-usage", "realtime", "-g", "20", "-threads", "1")
DROPS = r"select=not(eq(mod(n\,7)\,3))*not(between(n\,30\,44))"


def colours(matrix: str, span: str) -> tuple[str, ...]:
    """H.264 in colours of this matrix and range, which the file names."""
    named = {"bt601": "smpte170m"}.get(matrix, matrix)
    tags = ("-colorspace", named, "-color_primaries", named, "-color_trc", named, "-color_range", span)
    return (*X264, "-vf", f"scale=out_color_matrix={matrix}:out_range={span}", *tags)


# Name of the file, and how ffmpeg encodes it.
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "constant": ("a.mp4", (*X264, "-g", "12", "-bf", "0")),
    "long_gop": ("a.mp4", (*X264, "-g", "250", "-bf", "3")),
    "open_gop": ("a.mp4", (*X264, "-x264-params", "open-gop=1:keyint=10:min-keyint=10:bframes=3:scenecut=0")),
    "variable_rate": ("a.mp4", (*X264, "-g", "12", "-vf", DROPS, "-fps_mode", "vfr")),
    "variable_rate_webm": ("a.webm", (*VP9, "-vf", DROPS, "-fps_mode", "vfr")),
    "fragmented": ("a.mp4", (*X264, "-g", "12", "-bf", "3", "-movflags", "frag_keyframe+empty_moov")),
    "negative_shifts": ("a.mp4", (*X264, "-g", "12", "-bf", "3", "-movflags", "negative_cts_offsets")),
    "odd_size": ("a.mp4", (*X264, "-pix_fmt", "yuv444p", "-g", "12", "-vf", "crop=96:63:0:0,pad=97:63")),
    "odd_size_vp9": ("a.webm", (*VP9, "-vf", "crop=96:63:0:0,pad=97:63")),
    "non_square": ("a.mp4", (*X264, "-g", "12", "-bf", "2", "-vf", "setsar=4/3")),
    "ten_bit": ("a.mp4", (*X264, "-pix_fmt", "yuv420p10le", "-g", "12", "-bf", "2")),
    "ten_bit_hevc": ("a.mp4", (*X265, "keyint=15:bframes=3:log-level=1", "-pix_fmt", "yuv420p10le")),
    "limited_bt601": ("a.mp4", colours("bt601", "tv")),
    "limited_bt709": ("a.mp4", colours("bt709", "tv")),
    "full_bt601": ("a.mp4", colours("bt601", "pc")),
    "full_bt709": ("a.mp4", colours("bt709", "pc")),
    "interlaced": ("a.mp4", (*X264, "-g", "12", "-bf", "2", "-flags", "+ildct+ilme", "-x264-params", "tff=1")),
    "interlaced_mpeg2": ("a.mpg", ("-c:v", "mpeg2video", "-q:v", "2", "-g", "12", "-bf", "2", "-flags", "+ildct+ilme")),
    "transport": ("a.ts", (*X264, "-g", "12", "-bf", "3")),
    "mpeg2_transport": ("a.ts", ("-c:v", "mpeg2video", "-q:v", "2", "-g", "12", "-bf", "2")),
    "mpeg2_program": ("a.mpg", ("-c:v", "mpeg2video", "-q:v", "2", "-g", "12", "-bf", "2")),
    "matroska": ("a.mkv", (*X264, "-g", "15", "-bf", "3")),
    "h264_avi": ("a.avi", (*X264, "-g", "12", "-bf", "0")),
    "h264_avi_b_frames": ("a.avi", (*X264, "-g", "12", "-bf", "2")),
    "hevc": ("a.mp4", (*X265, "keyint=15:bframes=3:log-level=1")),
    "hevc_matroska": ("a.mkv", (*X265, "keyint=15:bframes=3:open-gop=0:log-level=1")),
    "hevc_transport": ("a.ts", (*X265, "keyint=15:bframes=3:log-level=1")),
    "mpeg4": ("a.mp4", ("-c:v", "mpeg4", "-q:v", "2", "-g", "12", "-bf", "2")),
    "mpeg4_avi": ("a.avi", ("-c:v", "mpeg4", "-q:v", "2", "-g", "12")),
    "mpeg4_avi_b_frames": ("a.avi", ("-c:v", "mpeg4", "-q:v", "2", "-g", "12", "-bf", "2")),
    "mpeg4_mkv": ("a.mkv", ("-c:v", "mpeg4", "-q:v", "2", "-g", "12", "-bf", "2")),
    "variable_rate_avi": ("a.avi", ("-c:v", "mpeg4", "-q:v", "2", "-g", "12", "-vf", DROPS, "-fps_mode", "vfr")),
    "mjpeg_avi": ("a.avi", ("-c:v", "mjpeg", "-q:v", "2")),
    "mjpeg_mov": ("a.mov", ("-c:v", "mjpeg", "-q:v", "2")),
    "vp8": (
        "a.webm",
        ("-c:v", "libvpx", "-crf", "8", "-b:v", "2M", "-deadline", "realtime", "-cpu-used", "8", "-g", "20"),
    ),
    "vp8_hidden_frames": ("a.webm", ("-c:v", "libvpx", "-b:v", "300k", "-auto-alt-ref", "1", "-lag-in-frames", "25")),
    "vp9": ("a.webm", VP9),
    "vp9_mp4": ("a.mp4", VP9),
    "av1": ("a.webm", AV1),
    "av1_mp4": ("a.mp4", AV1),
}
# Kinds that are made of another without encoding it again: of which, its name, and the options before and after "-i".
DERIVED: dict[str, tuple[str, str, tuple[str, ...], tuple[str, ...]]] = {
    "edit_list": ("long_gop", "a.mp4", ("-ss", "0.6"), ()),
    "edit_list_open_gop": ("open_gop", "a.mp4", ("-ss", "0.9"), ()),
    "rotated_90": ("long_gop", "a.mp4", ("-display_rotation", "90"), ()),
    "rotated_180": ("long_gop", "a.mp4", ("-display_rotation", "180"), ()),
    "rotated_270": ("long_gop", "a.mp4", ("-display_rotation", "270"), ()),
    "mirrored": ("long_gop", "a.mp4", ("-display_hflip",), ()),
    "mirrored_90": ("long_gop", "a.mp4", ("-display_rotation", "90", "-display_hflip"), ()),
    "late_picture": ("long_gop", "a.mkv", ("-itsoffset", "0.5"), ()),
    "late_picture_mp4": ("long_gop", "a.mp4", ("-itsoffset", "0.5"), ()),
    "negative_start": ("vp9", "a.webm", (), ("-output_ts_offset", "-0.5", "-avoid_negative_ts", "disabled")),
    "without_times": ("matroska", "a.mkv", (), ("-output_ts_offset", "-0.5", "-avoid_negative_ts", "disabled")),
    "starts_in_the_middle": ("transport", "a.ts", (), ("-bsf:v", r"noise=drop=lt(n\,5)")),
}


def make_video(kind: str, folder: Path) -> Path:
    """Makes one kind of file out of numbered frames; beside those that start late there is a tone from the start on."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind in KINDS:
        name, encoding = KINDS[kind]
        source = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(RATE), "-i", "-")
        content = numbered_frames().tobytes()
        if kind == "vp8_hidden_frames":
            ffmpeg(*source, *encoding, "-pass", "1", "-passlogfile", folder / "log", "-f", "null", "-", sent=content)
            encoding = (*encoding, "-pass", "2", "-passlogfile", str(folder / "log"))
        ffmpeg(*source, *encoding, folder / name, sent=content)
        return folder / name
    base, name, before, after = DERIVED[kind]
    plain = make_video(base, folder / "plain")
    tone = ("-f", "lavfi", "-i", "sine=frequency=440:duration=3:sample_rate=16000") if kind.startswith("late") else ()
    tracks = ("-map", "1:v", "-map", "0:a", "-c:v", "copy") if tone else ("-c", "copy")
    ffmpeg(*tone, *before, "-i", plain, *tracks, *after, folder / name)
    return folder / name
