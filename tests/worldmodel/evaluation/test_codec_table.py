from typing import Any

from worldmodel.evaluation.codec_table import table

MEAN = {"mean": 30.123, "low": 29.5, "high": 31.0}
SCALES = [
    {"vocabulary": 512, "usage": 0.5, "perplexity": 12.4, "changed": 0.1},
    {"vocabulary": 64, "usage": 1.0, "perplexity": 60.0, "changed": 0.25},
]
BOTH: dict[str, Any] = {
    "tokens_per_frame": 85,
    "bits_per_frame": {"alone": 700.26, "in_time": 230.0},
    "scales": SCALES,
    "encoded_frames_per_second": 250.0,
    "decoded_frames_per_second": 300.0,
    "training_steps": None,
    "videos_seen": 0,
}
PICTURE = BOTH | {
    "bits_per_pixel": 0.0567,
    "psnr": MEAN,
    "ssim": MEAN,
    "jpeg": {"fits": True, "psnr": MEAN, "bits_per_frame": 699.9, "setting": "quality 40, 32x32"},
    "h264": {"fits": False, "psnr": MEAN, "bits_per_frame": 250.0, "setting": "crf 51.0"},
    "still_finest_codes": {"changed": 0.0912, "num_still": 9},
}


def cells(lines: list[str], title: str) -> list[str]:
    """What stands in a line, which two spaces and more keep apart."""
    (line,) = [line for line in lines if line.startswith(title)]
    return [cell.strip() for cell in line.removeprefix(title).split("  ") if cell.strip()]


def test_every_codec_is_a_column_and_every_measure_a_line():
    other = PICTURE | {"tokens_per_frame": 7}
    del other["h264"]
    lines = table("picture", {"vq": PICTURE, "another": other})
    assert lines[0].split() == ["vq", "another"]
    assert cells(lines, "tokens per frame") == ["85", "7"]
    assert cells(lines, "PSNR (dB)") == ["30.12 (29.50…31.00)"] * 2
    assert cells(lines, "PSNR of H.264 at these bits (dB)") == ["(!) 30.12 (29.50…31.00)", "- (odd size)"]
    assert cells(lines, "  setting of JPEG") == ["quality 40, 32x32"] * 2
    assert cells(lines, "their perplexity") == ["12 60"] * 2
    assert cells(lines, "bits per frame, alone") == ["700.3"] * 2
    assert cells(lines, "training steps") == ["-", "-"]
    measures = lines[: [line.startswith("Intervals") for line in lines].index(True)]
    assert len({len(line) for line in measures}) == 1  # columns stand below each other


def test_sound_has_its_own_lines():
    onsets = {"num_truth": 9, "num_missed": 1, "num_extra": 2, "median_error_ms": 2.5, "error_ms_95": None}
    lines = table("sound", {"ear": BOTH | {"log_spectral_distance_db": MEAN, "onsets": onsets}})
    assert cells(lines, "  missed") == ["1"]
    assert cells(lines, "  95 % of errors below (ms)") == ["-"]
    assert not [line for line in lines if "JPEG" in line]
