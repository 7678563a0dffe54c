"""Sound of real footage against the ffmpeg program, where the footage is at hand."""

from pathlib import Path

import numpy as np
import pytest

from streams.errors import MediaError
from streams.pyav.sound import SoundReader
from tests.streams.ffmpeg import ffmpeg
from tests.streams.pyav.sounds import best_shift

HZ = 16000
FOLDER = (Path(__file__).resolve().parents[3] / "../shared/videos").resolve()
VIDEOS = sorted(path for path in FOLDER.rglob("*.*") if path.is_file() and path.suffix not in (".csv", ".md"))
# Samples that ours may be away from ffmpeg's, which counts samples on where times are up to a tenth of a second off.
EXCEPTIONS = {
    "filetype_whiteboard.3gp": (330, "the first packet lacks 20 ms of sound, which ffmpeg takes from what follows"),
    "made_av1_opus.mkv": (22, "half of the priming is declared, and milliseconds round the rest"),
    "made_truncated_vp9.webm": (22, "half of the priming is declared, and milliseconds round the rest"),
    "made_fragmented_cut.mp4": (770, "a gap of 48 ms, which ffmpeg leaves out"),
    "opencv_box.mp4": (30, "its times run away from its samples by 2 ms, which ours follows"),
    "screen_capture_518x488.mp4": (12, "its times step by 0.7 ms, which ours follows"),
    "bbb_0_30.webm": (2, "frames of many sizes, in times of whole milliseconds"),
}
# Their times say nothing: a header with a wrong rate, damage in the sound.
SENSELESS = ("avi_large_length.avi", "made_bit_flips.mp4")


def expected_sound(path: Path) -> np.ndarray:
    """Like `reference_sound`, of files that may be damaged."""
    options = ("-err_detect", "ignore_err", "-i", path, "-map", "0:a:0", "-af", "aresample=async=1:first_pts=0")
    try:
        return np.frombuffer(ffmpeg(*options, "-ac", "1", "-ar", str(HZ), "-f", "f32le", "-")[0], np.float32)
    except AssertionError:
        return np.zeros(0, np.float32)


@pytest.mark.skipif(not VIDEOS, reason=f"no footage in {FOLDER}")
@pytest.mark.parametrize("path", VIDEOS, ids=lambda path: path.name)
def test_three_intervals_are_where_ffmpeg_has_them(path: Path):
    try:
        reader = SoundReader(path, HZ)
    except MediaError:
        pytest.skip("its sound cannot be opened")
    with reader:
        if not reader.has_sound or path.name in SENSELESS:
            pytest.skip("nothing to compare")
        expected = expected_sound(path)
        if len(expected) < HZ // 20:
            pytest.skip("ffmpeg finds no sound")
        seconds = len(expected) / HZ
        allowed, _ = EXCEPTIONS.get(path.name, (1, ""))
        for share in (0.7, 0.05, 0.4):
            start = round(share * seconds * HZ) / HZ
            sound = reader.read(start, start + min(0.7, seconds / 4))
            assert sound is not None
            part = expected[round(start * HZ) :][: len(sound)]
            if max(np.abs(part).max(), sound.abs().max()) < 2e-3:
                continue  # silence is the same everywhere
            shift, _ = best_shift(sound.numpy(), expected, round(start * HZ), allowed + 16)
            assert abs(shift) <= allowed, f"from {start} s"
