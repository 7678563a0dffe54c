import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from streams.manifest import Entry, Manifest
from streams.settings import ClipSettings
from streams.videos import VideoSource
from tests.fake_codecs import make_videos
from worldmodel.errors import MediaError
from worldmodel.folders import find_all, name_of, parts_of, weights_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folders")
    make_videos(folder / "all", num_videos=3)
    shutil.copytree(folder / "all", folder / "other")
    return folder


def test_weights_are_those_of_the_mapping_and_one_for_a_single_folder():
    assert weights_of("a") == [1.0]
    assert weights_of(None) == [1.0]
    assert weights_of({"a": 3.0, "b": 0.5}) == [3.0, 0.5]


def test_a_video_in_two_folders_belongs_to_the_first_however_it_is_named(folder: Path):
    one = min((folder / "all").glob("*.mp4"))
    found = find_all({str(one.parent / "." / one.name): 1.0, str(folder / "all"): 1.0})
    assert len(found) == 3
    assert [origin.endswith(".mp4") for _, origin in found.values()] == [True, False, False]
    assert name_of(Path("a.mp4")) == name_of(Path.cwd() / "a.mp4")


def test_a_manifest_by_hand_is_matched_to_its_videos(folder: Path):
    files = sorted((folder / "other").glob("*.mp4"))
    Manifest(tuple(Entry(path.as_uri(), reader="pyav") for path in files)).write(folder / "some.parquet")
    folders = {str(folder / "some.csv"): 1.0, str(folder / "all"): 1.0}
    videos = VideoSource([each for each, _ in find_all(folders).values()], ClipSettings(num_frames=4))
    first, second = parts_of(videos, folders, range(len(videos)))
    assert {Path(videos.path_of(clip)).parent.name for clip in first} == {"other"}
    assert {Path(videos.path_of(clip)).parent.name for clip in second} == {"all"}
    assert sorted([*first, *second]) == list(range(len(videos)))


def test_a_folder_that_another_holds_must_come_first(folder: Path):
    def parts(*names: str) -> list[Sequence[int]]:
        folders = dict.fromkeys((str(folder / name) for name in names), 1.0)
        videos = VideoSource([each for each, _ in find_all(folders).values()], ClipSettings(num_frames=4))
        return parts_of(videos, folders, range(len(videos)))

    assert all(parts("other", ""))
    with pytest.raises(MediaError, match="other: no video of it is usable, so that its weight 1 cannot be kept"):
        parts("", "other")
