from dataclasses import replace

import numpy as np

from streams.manifest import Entry, Manifest
from tools.scan_report import MAX_LINES, report

GOOD = Entry(
    "/v/a.mp4", 2_000_000, reader="pyav", container="mov,mp4", codec="h264", width=64, height=48, true_rate=25.0,
    num_frames=90_000, duration_seconds=3600.0, split="train", cuts_seconds=np.array([1.0, 2.0]),
)  # fmt: skip
HEARD = replace(
    GOOD, path="/v/b.mp4", codec="vp9", variable_rate=True, rotation=90, edit_list=True, sound_codec="aac",
    sample_hz=48000, num_channels=2, sound_seconds=3600.0, sound_offset_seconds=0.5, sound_drift_seconds=0.2,
    sound_peak_db=-60.0, duplicate_of="/v/a.mp4", problems=("its sound has 1 gaps",), split="test",
)  # fmt: skip


def lines_of(*entries: Entry) -> dict[str, str]:
    """What each line says, by its beginning."""
    lines = list(report(Manifest(entries)))
    return {line[:14].strip(): line[14:] for line in lines}


def test_everything_is_counted():
    lines = lines_of(GOOD, HEARD, Entry("/v/c.mp4", problems=("no video",)))
    assert lines["files"] == "3: 2 usable, 1 not"
    assert lines["usable"] == "2.000 hours, 180000 frames, 4.0 MB"
    assert lines["codecs"] == "h264 1, vp9 1"
    assert (lines["variable rate"], lines["rotated"], lines["edit lists"], lines["duplicates"]) == ("1", "1", "1", "1")
    assert lines["scene cuts"] == "4"
    assert lines["splits"] == "train 1, test 1"
    assert lines["sound"] == "1 of 2, 1 of them silent"
    assert lines["sound codecs"] == "aac 48000 Hz 2 ch 1"


def test_reasons_and_oddities_are_listed_by_file():
    lines = list(report(Manifest((GOOD, HEARD, Entry("/v/c.mp4", problems=("no video",))))))
    assert lines[lines.index("not usable") + 1] == "  /v/c.mp4: no video"
    assert lines[lines.index("usable, but") + 1] == "  /v/b.mp4: its sound has 1 gaps"


def test_sound_beside_the_pictures_is_a_table():
    (line,) = [line for line in report(Manifest((GOOD, HEARD))) if "drifts" in line and line.startswith("  ")]
    assert line.split() == ["+0.500", "+0.2000", "3600.000", "3600.000", "-60.0", "/v/b.mp4", "(late,", "drifts)"]
    early = replace(HEARD, sound_offset_seconds=-0.5, sound_drift_seconds=0.0, sound_seconds=10.0)
    assert any(line.endswith("(early, ends early)") for line in report(Manifest((early,))))


def test_strange_names_stay_on_one_line():
    lines = list(report(Manifest((Entry("/v/line\nbreak.mp4", problems=("no video",)),))))
    assert "  '/v/line\\nbreak.mp4': no video" in lines


def test_long_lists_are_cut():
    entries = [Entry(f"/v/{number}.mp4", problems=("no video",)) for number in range(MAX_LINES + 5)]
    assert list(report(Manifest(tuple(entries))))[-1] == "  … and 5 more, in the CSV"


def test_no_usable_file_is_no_error():
    assert lines_of(Entry("/v/c.mp4", problems=("no video",)))["usable"] == "0.000 hours, 0 frames, 0.0 MB"
