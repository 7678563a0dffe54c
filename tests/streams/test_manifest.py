import csv
import os
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streams.errors import MediaError
from streams.index import FrameIndex
from streams.manifest import Entry, Manifest

INDEX = FrameIndex(
    ticks=np.array([0, 3003, 6006]),
    keys=np.array([0]),
    tick_seconds=Fraction(1, 90000),
    start_seconds=Fraction(-7, 3),
    container="mov,mp4",
    codec="h264",
    decoded=True,
)
FULL = Entry(
    path="/videos/a.mp4",
    size_bytes=3_000_000_000,
    modified_seconds=1.25,
    content_hash="ab" * 32,
    reader="pyav",
    problems=("odd; in a way", 'second, "quoted"\nand broken'),
    container="mov,mp4",
    codec="h264",
    pixel_format="yuv420p",
    width=64,
    height=48,
    rotation=-90,
    sample_aspect_ratio=4 / 3,
    nominal_rate=30.0,
    true_rate=29.97,
    variable_rate=True,
    num_frames=3,
    duration_seconds=0.1,
    sound_codec="aac",
    sample_hz=44100,
    num_channels=2,
    sound_seconds=0.2,
    sound_offset_seconds=-0.5,
    sound_drift_seconds=0.001,
    sound_peak_db=-3.5,
    edit_list=True,
    duplicate_of="/elsewhere/b.mp4",
    split="test",
    index=INDEX,
    cuts_seconds=np.array([0.033, 0.066]),
)
ARRAYS = ("index", "cuts_seconds")


def plain(entry: Entry) -> dict:
    return {each.name: getattr(entry, each.name) for each in fields(Entry) if each.name not in ARRAYS}


def test_parquet_gives_back_everything(tmp_path: Path):
    empty = Entry("/videos/z.mp4", problems=("no video",))
    Manifest((FULL, empty, replace(FULL, path="/videos/c.mp4", cuts_seconds=np.zeros(0)))).write(tmp_path / "m.parquet")
    read = Manifest.read(tmp_path / "m.parquet").entries
    assert [plain(entry) for entry in read[:2]] == [plain(FULL), plain(empty)]
    assert read[1].index is None
    assert len(read[1].cuts_seconds) == 0
    for entry in (read[0], read[2]):
        assert entry.index is not None
        np.testing.assert_array_equal(entry.index.ticks, INDEX.ticks)
        np.testing.assert_array_equal(entry.index.keys, INDEX.keys)
        names = ("tick_seconds", "start_seconds", "container", "codec", "decoded")
        assert [getattr(entry.index, name) for name in names] == [getattr(INDEX, name) for name in names]
    np.testing.assert_array_equal(read[0].cuts_seconds, FULL.cuts_seconds)
    assert len(read[2].cuts_seconds) == 0


def test_csv_stands_beside_it_and_gives_back_what_people_read(tmp_path: Path):
    Manifest((FULL, Entry("/videos/z.mp4"))).write(tmp_path / "m.parquet")
    read = Manifest.read(tmp_path / "m.csv").entries
    assert [plain(entry) for entry in read] == [plain(FULL), plain(Entry("/videos/z.mp4"))]
    assert read[0].index is None
    with (tmp_path / "m.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))  # another reader of CSV
    assert [row["path"] for row in rows] == ["/videos/a.mp4", "/videos/z.mp4"]
    assert rows[0]["sample_hz"] == "44100"


def test_a_manifest_without_entries_is_one(tmp_path: Path):
    Manifest(()).write(tmp_path / "m.parquet")
    assert Manifest.read(tmp_path / "m.parquet").entries == ()
    assert Manifest.read(tmp_path / "m.csv").entries == ()


def test_usable_entries_are_those_with_a_reader(tmp_path: Path):
    manifest = Manifest((FULL, Entry("/videos/z.mp4")))
    assert manifest.usable == [FULL]
    assert manifest.by_path["/videos/z.mp4"].reader == ""


def test_sound_below_50_db_is_silent():
    assert (FULL.has_sound, FULL.is_silent) == (True, False)
    assert replace(FULL, sound_peak_db=-50.1).is_silent
    assert not Entry("/a.mp4").has_sound


def test_a_manifest_moves_together_with_its_videos(tmp_path: Path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    Manifest((Entry(str(here / "deep" / "a.mp4"), duplicate_of=str(here / "b.mp4")), FULL)).write(here / "m.parquet")
    here.rename(there)
    for name in ("m.parquet", "m.csv"):
        read = Manifest.read(there / name).entries
        assert [entry.path for entry in read] == [str(there / "deep" / "a.mp4"), "/videos/a.mp4"]
        assert read[0].duplicate_of == str(there / "b.mp4")


def test_a_write_that_fails_leaves_the_old_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Manifest((FULL,)).write(tmp_path / "m.parquet")

    def fsync(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        Manifest(()).write(tmp_path / "m.parquet")
    assert len(Manifest.read(tmp_path / "m.parquet").entries) == 1


@pytest.mark.parametrize("name", ["m.parquet", "m.csv"])
@pytest.mark.parametrize("content", [b"", b"no table\n", b"PAR1 and nothing", bytes(range(256)) * 20])
def test_a_damaged_manifest_is_a_media_error(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MediaError, match=rf"m\.{name[2:]}: is (damaged or )?no manifest"):
        Manifest.read(tmp_path / name)


def test_a_cut_manifest_is_a_media_error(tmp_path: Path):
    Manifest((FULL,) * 50).write(tmp_path / "m.parquet")
    content = (tmp_path / "m.parquet").read_bytes()
    (tmp_path / "m.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(MediaError, match="damaged or no manifest .*; scan the videos again"):
        Manifest.read(tmp_path / "m.parquet")


def test_another_table_is_a_media_error_that_names_the_missing_columns(tmp_path: Path):
    pq.write_table(pa.table({"path": ["a.mp4"], "size_bytes": [3]}), tmp_path / "m.parquet")
    with pytest.raises(MediaError, match="no manifest of videos .without the columns modified_seconds, content_hash"):
        Manifest.read(tmp_path / "m.parquet")


def test_a_column_of_another_kind_is_a_media_error(tmp_path: Path):
    Manifest((FULL,)).write(tmp_path / "m.parquet")
    table = pq.read_table(tmp_path / "m.parquet")
    place = table.column_names.index("width")
    pq.write_table(table.set_column(place, "width", pa.array(["wide"])), tmp_path / "m.parquet")
    with pytest.raises(MediaError, match="damaged or no manifest"):
        Manifest.read(tmp_path / "m.parquet")


def test_an_empty_cell_is_a_media_error(tmp_path: Path):
    Manifest((FULL,)).write(tmp_path / "m.parquet")
    table = pq.read_table(tmp_path / "m.parquet")
    place = table.column_names.index("width")
    pq.write_table(table.set_column(place, "width", pa.array([None], pa.int64())), tmp_path / "m.parquet")
    with pytest.raises(MediaError, match="row 1 has empty cells"):
        Manifest.read(tmp_path / "m.parquet")


def test_problems_may_tell_names_that_are_not_utf_8(tmp_path: Path):
    entry = Entry("/videos/a.mp4", problems=("no \udcff here, but ü",))
    Manifest((entry,)).write(tmp_path / "m.parquet")
    for name in ("m.parquet", "m.csv"):
        assert Manifest.read(tmp_path / name).entries[0].problems == entry.problems
