from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from streams.examine import examine
from streams.manifest import Entry, Manifest
from streams.settings import ScanSettings
from tests.streams.ffmpeg import X264, ffmpeg
from tools.contact_sheet import GAP, LINE, ODD, SIDE, WRONG, draw_sheet, draw_tile, lines_of

SETTINGS = ScanSettings()


def test_a_sheet_shows_a_frame_of_every_file_and_marks_what_is_wrong(tmp_path: Path):
    ffmpeg("-f", "lavfi", "-i", "color=c=blue:size=96x48:rate=5:duration=1", *X264, tmp_path / "a.mp4")
    good = examine(tmp_path / "a.mp4", SETTINGS)
    manifest = Manifest((good, Entry("/gone.mp4", problems=("no video",))))
    assert draw_sheet(manifest, tmp_path / "m.png", SETTINGS, 1, 10) == 2
    with Image.open(tmp_path / "m.png") as picture:
        sheet = np.asarray(picture)
    assert sheet.shape == (SIDE + 3 * LINE + 2 * GAP, 2 * (SIDE + GAP) + GAP, 3)
    middle = GAP + SIDE // 2
    assert sheet[middle, middle].argmax() == 2
    assert tuple(sheet[GAP + 1, 2 * GAP + SIDE + 1]) == WRONG
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "m.png"]


def test_a_sheet_has_no_more_files_than_it_may(tmp_path: Path):
    entries = tuple(Entry(f"/{number:03}.mp4", problems=("no video",)) for number in range(50))
    assert draw_sheet(Manifest(entries), tmp_path / "m.png", SETTINGS, 1, 9) == 9
    with Image.open(tmp_path / "m.png") as picture:
        assert picture.width == 8 * (SIDE + GAP) + GAP


@pytest.mark.parametrize(("problems", "colour"), [((), None), (("odd",), ODD)])
def test_an_odd_file_has_a_border(problems: tuple[str, ...], colour: tuple | None):
    frame = np.full((SIDE, SIDE, 3), 200, np.uint8)
    tile = draw_tile(Entry("/a.mp4", reader="pyav", problems=problems), frame)
    assert tile.getpixel((1, 1)) == (colour or (200, 200, 200))


def test_a_tile_says_what_is_in_the_file():
    entry = Entry("/v/a name that is much too long for a tile.mp4", reader="pyav", codec="h264", width=64, height=48)
    entry = replace(entry, true_rate=29.97, variable_rate=True, duration_seconds=2.0)
    assert list(lines_of(entry)) == ["a name that is ...tile.mp4", "h264 64x48 30 VFR", "2.0 s, no sound"]
    heard = replace(entry, num_channels=1, sound_codec="aac", sound_peak_db=-3.0, sound_offset_seconds=0.25)
    assert list(lines_of(heard))[2] == "2.0 s, aac +0.25s"
    assert list(lines_of(replace(heard, sound_peak_db=-90.0)))[2] == "2.0 s, silent"
    assert list(lines_of(Entry("/v/\udcff\n.mp4"))) == ["?\n.mp4"]
