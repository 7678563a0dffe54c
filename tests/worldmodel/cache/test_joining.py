import dataclasses
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from streams.videos import VideoSource
from tests.fake_codecs import FakePictureCodec, FakeSoundCodec, make_videos
from worldmodel.cache.build import BuildOptions, encode_videos
from worldmodel.cache.checking import check_files
from worldmodel.cache.encoding import clip_settings
from worldmodel.cache.joining import join_caches
from worldmodel.cache.latents import LatentCache, LatentSource
from worldmodel.cache.writer import work_folder
from worldmodel.errors import CacheError

CODECS = [FakePictureCodec(), FakeSoundCodec()]
OPTIONS = BuildOptions(heldout=0.3, batch_size=2, progress=False)
KILLED = """
import os, signal, sys
from pathlib import Path
from worldmodel.cache import joining, writer
from worldmodel.cache.latents import LatentCache
if __name__ == "__main__":
    writer.sync_tree = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
    joining.join_caches([LatentCache(path) for path in sys.argv[1:3]], Path(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A file that is no video, and five videos, one of them silent."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "broken.mp4").write_bytes(b"no video at all")
    return [folder / "broken.mp4", *make_videos(folder, 5, silent=(1,))]


@pytest.fixture(scope="module")
def caches(videos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[LatentCache]:
    """Of the first videos, of the others, and of all."""
    folder = tmp_path_factory.mktemp("caches")
    return [build(folder / f"{number}.zarr", part) for number, part in enumerate((videos[:4], videos[4:], videos))]


def build(path: Path, videos: list[Path], options: BuildOptions = OPTIONS, num_frames: int = 8) -> LatentCache:
    encode_videos(VideoSource(videos, clip_settings(CODECS, num_frames)), CODECS, path, options)
    return LatentCache(path)


def test_joined_caches_are_byte_for_byte_a_build_of_all_their_videos(caches: list[LatentCache], tmp_path: Path):
    join_caches(caches[:2], tmp_path / "C.zarr")
    joined = LatentCache(tmp_path / "C.zarr")
    assert joined.attributes == caches[2].attributes
    assert len(joined.info.skipped) == 1
    check_files(joined.path)
    for name, rows in caches[2].rows.items():
        assert (joined.rows[name].to_array() == rows.to_array()).all(), name
    assert [path.name for path in tmp_path.iterdir()] == ["C.zarr"]


def test_rows_stand_cache_after_cache_in_the_order_that_is_given(caches: list[LatentCache], tmp_path: Path):
    second, first = caches[1], caches[0]
    info = join_caches([second, first], tmp_path / "C.zarr", "archive")
    joined = LatentSource(tmp_path / "C.zarr", 8, "all", random_start=False)
    assert joined.cache.profile == "archive"
    assert info.videos == second.info.videos + first.info.videos
    for position in range(joined.cache.num_clips):
        cache, row = (second, position) if position < second.num_clips else (first, position - second.num_clips)
        video = cache.info.videos[cache.rows["video"][row]]
        assert info.videos[joined.cache.rows["video"][position]] == video
        assert (joined.read(position, np.random.default_rng(0)).picture[0].numpy() == cache.rows["picture"][row]).all()


def test_what_builds_may_differ_in_is_noted(caches: list[LatentCache], videos: list[Path], tmp_path: Path):
    other = build(tmp_path / "B.zarr", videos[4:], dataclasses.replace(OPTIONS, batch_size=4))
    info = join_caches([caches[0], other], tmp_path / "C.zarr")
    assert info.build == caches[2].info.build | {"batch_size": [2, 4]}


@pytest.mark.parametrize(
    ("options", "num_frames", "message"),
    [
        (dataclasses.replace(OPTIONS, heldout=0.5), 8, r"build\.heldout is 0\.3 there and 0\.5 here"),
        (dataclasses.replace(OPTIONS, thumbnail_side=8), 8, r"thumbnail is \[16, 16\] there and \[8, 8\] here"),
        (OPTIONS, 4, r"clips\.num_frames is 8 there and 4 here"),
    ],
)
def test_caches_that_differ_in_more_are_refused(
    caches: list[LatentCache], videos: list[Path], tmp_path: Path, options: BuildOptions, num_frames: int, message: str
):
    other = build(tmp_path / "B.zarr", videos[4:], options, num_frames)
    with pytest.raises(CacheError, match=f"0.zarr .there. and .*B.zarr .here. cannot be one cache: {message}"):
        join_caches([caches[0], other], tmp_path / "C.zarr")


def test_another_codec_and_another_format_are_refused(caches: list[LatentCache], tmp_path: Path):
    other = LatentCache(caches[1].path)
    other.info = dataclasses.replace(other.info, fingerprints={"picture": "p2", "sound": "fake-sound-1"})
    with pytest.raises(CacheError, match=r"fingerprints\.picture is fake-picture-1 there and p2 here"):
        join_caches([caches[0], other], tmp_path / "C.zarr")
    other.attributes = other.attributes | {"format_version": 1}
    with pytest.raises(CacheError, match="has cache format 1, not 2"):
        join_caches([caches[0], other], tmp_path / "C.zarr")


def test_a_video_that_is_in_two_caches_is_refused(caches: list[LatentCache], videos: list[Path], tmp_path: Path):
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(videos[1].read_bytes())
    other = build(tmp_path / "B.zarr", [copy, videos[5]])
    with pytest.raises(CacheError, match=rf"1 videos are in .*, first {copy} \(there {videos[1]}\)"):
        join_caches([caches[0], other], tmp_path / "C.zarr")
    other.info.videos[0] = (str(videos[1]), "another")
    with pytest.raises(CacheError, match=rf"1 videos are in .* with another content, first {videos[1]}"):
        join_caches([caches[0], other], tmp_path / "C.zarr")


def test_damage_is_not_carried_on(caches: list[LatentCache], videos: list[Path], tmp_path: Path):
    other = build(tmp_path / "B.zarr", videos[4:])
    file = tmp_path / "B.zarr" / "picture" / "c" / "0" / "0" / "0"
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)
    with pytest.raises(CacheError, match="picture/c/0/0/0 .damaged."):
        join_caches([caches[0], other], tmp_path / "C.zarr")
    assert not (tmp_path / "C.zarr").exists()


def test_a_cache_in_the_way_stays(caches: list[LatentCache], tmp_path: Path):
    with pytest.raises(CacheError, match="exists already"):
        join_caches(caches[:2], Path(str(caches[2].path)))
    (tmp_path / "C.zarr.building").mkdir()
    plan = work_folder(tmp_path / "C.zarr") / "plan.json"
    plan.write_text('{"info": {}}', encoding="utf-8")
    with pytest.raises(CacheError, match="plan.json is damaged"):
        join_caches(caches[:2], tmp_path / "C.zarr")
    assert plan.exists()


def test_nothing_is_lost_by_a_kill(caches: list[LatentCache], tmp_path: Path):
    out = tmp_path / "C.zarr"
    paths = [str(cache.path) for cache in caches[:2]]
    ended = subprocess.run([sys.executable, "-c", KILLED, *paths, str(out)], check=False, capture_output=True)
    assert ended.returncode == -signal.SIGKILL
    assert not out.exists()
    join_caches(caches[:2], out)
    assert LatentCache(out).attributes == caches[2].attributes
    assert [path.name for path in tmp_path.iterdir()] == ["C.zarr"]
