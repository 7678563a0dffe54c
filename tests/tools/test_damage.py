from pathlib import Path

import numpy as np
import pytest

from streams.examine import examine
from streams.settings import ScanSettings
from tests.streams.ffmpeg import make_video
from tools.damage import KINDS, damage, is_refused, read, try_one

SETTINGS = ScanSettings()


def draw(number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[0, number]))


def test_damage_is_decided_by_the_generator_and_always_changes_something():
    content, other = bytes(range(256)) * 20, bytes(3000)
    made = [damage(content, other, draw(number)) for number in range(60)]
    assert made == [damage(content, other, draw(number)) for number in range(60)]
    assert {kind for kind, _ in made} == set(KINDS)
    assert all(damaged != content for _, damaged in made)
    assert all((len(damaged) < len(content)) == (kind == "cut") for kind, damaged in made)
    assert damage(bytes(100), bytes(100), draw(3))[1] != bytes(100)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video("constant", tmp_path_factory.mktemp("damage"))


def test_the_file_before_is_told_from_the_one_after(video: Path, tmp_path: Path):
    before = examine(video, SETTINGS)
    content = bytearray(video.read_bytes())
    (tmp_path / "a.mp4").write_bytes(content)
    assert not is_refused(tmp_path / "a.mp4", before)
    content[-1] ^= 1
    (tmp_path / "a.mp4").write_bytes(content)
    assert is_refused(tmp_path / "a.mp4", before)


def test_reading_gives_frames_an_error_or_nothing(video: Path, tmp_path: Path):
    entry = examine(video, SETTINGS)
    assert read(video, entry, draw(0)) == "frames"
    content = video.read_bytes()
    (tmp_path / "a.mp4").write_bytes(content.replace(b"moov", b"voom"))
    assert read(tmp_path / "a.mp4", entry, draw(0)) == "error"
    assert read(video, examine(tmp_path / "a.mp4", SETTINGS), draw(0)) == "nothing to read"


def test_one_damaged_file_is_made_scanned_read_and_removed(video: Path, tmp_path: Path):
    outcomes = [try_one(tmp_path, [examine(video, SETTINGS)], 0, SETTINGS, number) for number in range(12)]
    assert all(outcome.is_refused_by_hash for outcome in outcomes)
    assert {outcome.scanned for outcome in outcomes} <= {"decoded", "decoded in part", "refused"}
    assert all((outcome.read == "nothing to read") == (outcome.scanned == "refused") for outcome in outcomes)
    assert min(outcome.peak_bytes for outcome in outcomes) > 2**20
    assert list(tmp_path.iterdir()) == []
