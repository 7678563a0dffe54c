import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from streams.errors import MediaError
from streams.manifest import Entry, Manifest
from streams.scan import known_entries, scan, split_of
from streams.settings import ScanSettings
from tests.streams.doubles import examine as double
from tests.streams.ffmpeg import make_video
from tests.streams.web import serving

QUICK = ScanSettings(seconds_limit=3.0, fall_back=False, validation_share=0.2, test_share=0.2)


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(name.encode())


def examined(folder: Path) -> list[str]:
    """Names that were examined since the last call, sorted."""
    note = folder / "examined"
    names = sorted(note.read_text(encoding="utf-8").splitlines()) if note.exists() else []
    note.unlink(missing_ok=True)
    return names


def test_one_that_hangs_or_crashes_costs_its_file_alone_and_is_counted(tmp_path: Path):
    put(tmp_path, "a.mp4", "crash.mp4", "hang.mp4", "z.mp4")
    manifest = scan(tmp_path, tmp_path / "m.parquet", QUICK, num_workers=2, work=double)
    found = {Path(entry.path).name: (entry.reader, entry.problems) for entry in manifest.entries}
    assert found == {
        "a.mp4": ("pyav", ()),
        "crash.mp4": ("", ("the decoder crashed (SIGSEGV); leave it out",)),
        "hang.mp4": ("", ("the decoder hung: not done after 3 s; leave it out",)),
        "z.mp4": ("pyav", ()),
    }
    assert [entry.path for entry in Manifest.read(tmp_path / "m.parquet").usable] == [
        str(tmp_path / "a.mp4"),
        str(tmp_path / "z.mp4"),
    ]


@pytest.mark.parametrize("fall_back", [False, True])
def test_a_crash_of_a_library_that_is_compared_does_not_cost_the_file(fall_back: bool, tmp_path: Path):
    put(tmp_path, "a.mp4", "crash.mp4", "decord.mp4")
    settings = replace(QUICK, readers=("pyav", "decord"), fall_back=fall_back)
    manifest = scan(tmp_path, tmp_path / "m.parquet", settings, work=double)
    assert {Path(entry.path).name: entry.reader for entry in manifest.entries} == {
        "a.mp4": "pyav",
        "crash.mp4": "",
        "decord.mp4": "pyav",
    }
    assert examined(tmp_path) == ["a.mp4", "crash.mp4", "crash.mp4", "decord.mp4", "decord.mp4"]


def test_unchanged_files_are_kept_and_others_examined_again(tmp_path: Path):
    put(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    out = tmp_path / "m.parquet"
    scan(tmp_path, out, QUICK, work=double)
    assert examined(tmp_path) == ["a.mp4", "b.mp4", "c.mp4"]
    put(tmp_path, "d.mp4")
    (tmp_path / "b.mp4").write_bytes(b"other")
    (tmp_path / "c.mp4").unlink()
    manifest = scan(tmp_path, out, QUICK, work=double)
    assert examined(tmp_path) == ["b.mp4", "d.mp4"]
    assert [Path(entry.path).name for entry in manifest.entries] == ["a.mp4", "b.mp4", "d.mp4"]
    scan(tmp_path, out, QUICK, again=True, work=double)
    assert examined(tmp_path) == ["a.mp4", "b.mp4", "d.mp4"]


def test_a_changed_time_alone_is_no_change_where_the_content_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    put(tmp_path, "a.mp4")
    scan(tmp_path, tmp_path / "m.parquet", QUICK, work=double)
    examined(tmp_path)
    monkeypatch.setattr("streams.scan.content_hash", lambda address: address.read_bytes().hex().ljust(64, "0"))
    os.utime(tmp_path / "a.mp4", (5, 5))
    manifest = scan(tmp_path, tmp_path / "m.parquet", QUICK, work=double)
    assert examined(tmp_path) == []
    assert manifest.entries[0].modified_seconds == 5
    (tmp_path / "a.mp4").write_bytes(b"e.mp4")
    os.utime(tmp_path / "a.mp4", (6, 6))
    scan(tmp_path, tmp_path / "m.parquet", QUICK, work=double)
    assert examined(tmp_path) == ["a.mp4"]


def test_a_scan_of_a_manifest_looks_at_all_its_files_again(tmp_path: Path):
    put(tmp_path, "a.mp4", "crash.mp4")
    scan(tmp_path, tmp_path / "m.parquet", QUICK, work=double)
    examined(tmp_path)
    (tmp_path / "crash.mp4").rename(tmp_path / "b.mp4")
    manifest = scan(tmp_path / "m.parquet", tmp_path / "n.parquet", QUICK, work=double)
    problems = {Path(entry.path).name: entry.problems for entry in manifest.entries}
    assert examined(tmp_path) == ["a.mp4"]
    assert problems["a.mp4"] == ()
    assert "no such file" in problems["crash.mp4"][0]


def test_a_stopped_scan_goes_on_where_it_was(tmp_path: Path):
    put(tmp_path, *(f"{number}.mp4" for number in range(3)), "hang.mp4")
    program = """
import signal
import sys
from pathlib import Path
from streams.scan import scan
from streams.settings import ScanSettings
from tests.streams.doubles import examine
if __name__ == "__main__":
    # Whoever runs the tests in the background may have it ignored, which is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    scan(sys.argv[1], Path(sys.argv[1]) / "m.parquet", ScanSettings(), 1, work=examine)
"""
    file = tmp_path / "program.py"
    file.write_text(program)
    stopped = subprocess.Popen(
        [sys.executable, file, tmp_path],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    note = tmp_path / "examined"
    while not note.exists() or "hang" not in note.read_text(encoding="utf-8"):
        assert stopped.poll() is None
        time.sleep(0.05)
    stopped.send_signal(signal.SIGINT)
    stopped.wait()
    examined(tmp_path)
    assert not (tmp_path / "m.parquet").exists()
    manifest = scan(tmp_path, tmp_path / "m.parquet", QUICK, work=double)
    assert examined(tmp_path) == ["hang.mp4"]
    assert len(manifest.usable) == 3
    assert not list(tmp_path.glob(".*"))


def test_a_file_that_vanishes_or_may_not_be_read_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put(tmp_path, "a.mp4")
    (tmp_path / "locked").mkdir()
    monkeypatch.setattr(
        "streams.scan.find_videos",
        lambda videos, seconds: [tmp_path / "gone.mp4", tmp_path / "locked", tmp_path / "a.mp4"],
    )
    scandir = os.scandir

    def locked(path: Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    manifest = scan(tmp_path, tmp_path / "m.parquet", QUICK, work=double)
    problems = {Path(entry.path).name: entry.problems for entry in manifest.entries}
    assert problems["a.mp4"] == ()
    assert problems["gone.mp4"] == ("no such file or folder; give a folder of videos, one video, or a glob",)
    assert problems["locked"] == ("cannot be read (Permission denied); check the address, or try again",)


def test_duplicates_point_to_the_first_and_share_its_split(tmp_path: Path):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(b"other" if name == "b.mp4" else b"same")
    first, other, second = scan(tmp_path, tmp_path / "m.parquet", QUICK, work=double).entries
    assert (first.duplicate_of, other.duplicate_of, second.duplicate_of) == ("", "", first.path)
    assert first.split == second.split


def test_splits_have_their_shares_and_do_not_move_when_files_are_added():
    hashes = [f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}" for number in range(20000)]
    splits = [split_of(each, QUICK) for each in hashes]
    for name, share in (("train", 0.6), ("validation", 0.2), ("test", 0.2)):
        assert splits.count(name) / len(splits) == pytest.approx(share, abs=0.01)
    assert split_of("", QUICK) == ""
    assert {split_of(each, ScanSettings(validation_share=0.0, test_share=0.0)) for each in hashes} == {"train"}


def test_strange_names_come_back_from_the_manifest(tmp_path: Path):
    names = [b"line\nbreak.mp4", b"not utf-8 \xff.mp4", "naïve クリップ.mp4".encode()]
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(make_video_bytes(tmp_path))
    (tmp_path / "made").rename(tmp_path / ".made")
    scan(tmp_path, tmp_path / "m.parquet", ScanSettings())
    from streams.addresses import find_videos

    for manifest in ("m.parquet", "m.csv"):
        found = find_videos(tmp_path / manifest)
        assert sorted(os.fsencode(path.name) for path in found if isinstance(path, Path)) == sorted(names)
        assert all(isinstance(path, Path) and path.is_file() for path in found)


def make_video_bytes(folder: Path) -> bytes:
    made = sorted((folder / "made").glob("a.*"))
    return (made[0] if made else make_video("constant", folder / "made")).read_bytes()


def test_videos_on_a_server_and_in_memory_are_scanned(tmp_path: Path):
    (tmp_path / "web").mkdir()
    content = make_video_bytes(tmp_path)
    (tmp_path / "web" / "a.mp4").write_bytes(content)
    with serving(tmp_path / "web") as server:
        manifest = scan(server, tmp_path / "m.parquet", ScanSettings())
        again = scan(server, tmp_path / "m.parquet", ScanSettings())
    assert [(entry.path, entry.num_frames, entry.reader) for entry in manifest.entries] == [
        (f"{server}/a.mp4", 60, "pyav")
    ]
    assert again.entries[0].content_hash == manifest.entries[0].content_hash


def test_another_ending_is_refused(tmp_path: Path):
    with pytest.raises(MediaError, match=r"m\.txt: a manifest ends in \.parquet"):
        scan(tmp_path, tmp_path / "m.txt", QUICK)


def test_a_later_manifest_counts_more(tmp_path: Path):
    Manifest((Entry("/a.mp4", 1), Entry("/b.mp4", 1))).write(tmp_path / "m.parquet")
    Manifest((Entry("/b.mp4", 2),)).write(tmp_path / "n.parquet")
    known = known_entries(tmp_path / "m.parquet", tmp_path / "n.parquet", tmp_path / "gone.parquet")
    assert {path: entry.size_bytes for path, entry in known.items()} == {"/a.mp4": 1, "/b.mp4": 2}
