"""The table of `worldmodel evaluate codec`: a line for each measure, a column for each codec."""

from collections.abc import Callable
from typing import Any

Measures = dict[str, Any]

PICTURE_NOTES = (
    "Intervals: 95 % bootstrap over videos; PSNR of a frame is capped at 60 dB. Bits are those of a range coder that",
    "learns while it codes: `alone` knows how often each code came before, `in time` also the code at the same place",
    "of the previous frame. JPEG (the best of three sizes, headers and tables left out) has the bits of `alone`, H.264",
    "(x264, preset slow, one keyframe in a clip, headers left out) those of the cheaper one. (!) needs more than that.",
)
SOUND_NOTES = (
    "Spectral distance: power more than 60 dB below a full-scale sine counts as that. Onsets: rises of the energy;",
    "those softer than the loudest of a clip by 30 dB are none; matched within 50 ms.",
)


def table(kind: str, codecs: dict[str, Measures]) -> list[str]:
    """The measures of codecs of one kind and size as lines of text, and what they mean.

    Args:
        kind: picture or sound.
        codecs: measures by name.
    """
    notes, lines = (PICTURE_NOTES, PICTURE_LINES) if kind == "picture" else (SOUND_NOTES, SOUND_LINES)
    columns = [[name, *(line(measures) for line in lines.values())] for name, measures in codecs.items()]
    titles = ["", *lines]
    left = max(map(len, titles))
    widths = [max(map(len, column)) for column in columns]
    rows = zip(titles, *columns, strict=True)
    formatted = [
        "  ".join([title.ljust(left), *(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))])
        for title, *cells in rows
    ]
    return [*formatted, *notes]


def _number(key: str, digits: int) -> Callable[[Measures], str]:
    return lambda measures: _rounded(measures[key], digits)


def _rounded(value: float | int | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _mean(value: dict[str, float], digits: int = 2) -> str:
    return f"{value['mean']:.{digits}f} ({value['low']:.{digits}f}…{value['high']:.{digits}f})"


def _interval(key: str, digits: int) -> Callable[[Measures], str]:
    return lambda measures: _mean(measures[key], digits)


def _bits(model: str) -> Callable[[Measures], str]:
    return lambda measures: f"{measures['bits_per_frame'][model]:.1f}"


def _by_scale(key: str, digits: int) -> Callable[[Measures], str]:
    return lambda measures: " ".join(f"{scale[key]:.{digits}f}" for scale in measures["scales"])


def _reference(name: str) -> Callable[[Measures], str]:
    def cell(measures: Measures) -> str:
        if name not in measures:
            return "- (odd size)"
        found = measures[name]
        return f"{'' if found['fits'] else '(!) '}{_mean(found['psnr'])}"

    return cell


def _of_reference(name: str, key: str, digits: int = 0) -> Callable[[Measures], str]:
    def cell(measures: Measures) -> str:
        if name not in measures:
            return "-"
        found = measures[name][key]
        return found if isinstance(found, str) else _rounded(found, digits)

    return cell


def _onsets(key: str, digits: int = 1) -> Callable[[Measures], str]:
    return lambda measures: _rounded(measures["onsets"][key], digits)


CODES: dict[str, Callable[[Measures], str]] = {
    "tokens per frame": _number("tokens_per_frame", 0),
    "bits per frame, alone": _bits("alone"),
    "bits per frame, in time": _bits("in_time"),
}
USE: dict[str, Callable[[Measures], str]] = {
    "entries of each scale": _by_scale("vocabulary", 0),
    "share of them in use": _by_scale("usage", 2),
    "their perplexity": _by_scale("perplexity", 0),
    "share of codes that change": _by_scale("changed", 2),
}
SPEED: dict[str, Callable[[Measures], str]] = {
    "frames encoded per second": _number("encoded_frames_per_second", 0),
    "frames decoded per second": _number("decoded_frames_per_second", 0),
    "training steps": _number("training_steps", 0),
    "of these videos seen in training": _number("videos_seen", 0),
}
PICTURE_LINES = {
    **CODES,
    "bits per pixel": _number("bits_per_pixel", 4),
    "PSNR (dB)": _interval("psnr", 2),
    "SSIM": _interval("ssim", 3),
    "PSNR of JPEG at these bits, alone (dB)": _reference("jpeg"),
    "  bits per frame of JPEG": _of_reference("jpeg", "bits_per_frame", 1),
    "  setting of JPEG": _of_reference("jpeg", "setting"),
    "PSNR of H.264 at these bits (dB)": _reference("h264"),
    "  bits per frame of H.264": _of_reference("h264", "bits_per_frame", 1),
    "  setting of H.264": _of_reference("h264", "setting"),
    **USE,
    "finest codes that change in still patches": lambda measures: _rounded(
        measures["still_finest_codes"]["changed"], 3
    ),
    **SPEED,
}
SOUND_LINES = {
    **CODES,
    "log-spectral distance (dB)": _interval("log_spectral_distance_db", 2),
    "onsets in the truth": _onsets("num_truth", 0),
    "  missed": _onsets("num_missed", 0),
    "  extra": _onsets("num_extra", 0),
    "  median error (ms)": _onsets("median_error_ms"),
    "  95 % of errors below (ms)": _onsets("error_ms_95"),
    **USE,
    **SPEED,
}
