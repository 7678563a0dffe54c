import dataclasses
import hashlib
import itertools
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from streams.children import run_in_children
from streams.clip import Clip, to_float
from streams.errors import MediaError
from streams.pyav.writer import write_video
from streams.videos import VideoSource
from tests.fake_codecs import CLIPS, FakePictureCodec, FakeSoundCodec, make_videos
from worldmodel.cache.build import (
    WORKER_MEMORY_BYTES,
    BuildOptions,
    Reading,
    encode_videos,
    itself,
    read_and,
    read_clips,
)
from worldmodel.cache.building import Unit, Work
from worldmodel.cache.encoding import clip_settings
from worldmodel.cache.latents import LatentCache, LatentSource
from worldmodel.cache.writer import work_folder
from worldmodel.errors import CacheError, SettingsError

CODECS = [FakePictureCodec(), FakeSoundCodec()]
OPTIONS = BuildOptions(heldout=0.3, batch_size=2, progress=False)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three videos, one of them silent, and a file that is no video."""
    folder = tmp_path_factory.mktemp("videos")
    paths = make_videos(folder, silent=(1,))
    (folder / "broken.mp4").write_bytes(b"no video at all")
    return [*paths, folder / "broken.mp4"]


@pytest.fixture(scope="module")
def path(cache: LatentCache) -> Path:
    """Where the cache lies."""
    assert isinstance(cache.path, Path)
    return cache.path


@pytest.fixture(scope="module")
def cache(videos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> LatentCache:
    path = tmp_path_factory.mktemp("cache") / "OUT.zarr"
    encode_videos(VideoSource(videos, clip_settings(CODECS, 8)), CODECS, path, OPTIONS)
    return LatentCache(path)


def clips_of(videos: list[Path]) -> list[Clip]:
    source = VideoSource(videos, clip_settings(CODECS, 8))
    return [source.read(index, np.random.default_rng(0)) for index in range(len(source))]


def test_every_clip_has_the_codes_of_each_of_its_views(cache: LatentCache, videos: list[Path]):
    clips, rows, (picture, sound) = clips_of(videos), cache.rows, CODECS
    assert cache.num_clips == len(clips) == 9
    for position, clip in enumerate(clips):
        frames = to_float(clip.frames)[None]
        assert (rows["picture"][position] == picture.encode(frames)[0].numpy()).all()
        assert (rows["picture_reversed"][position] == picture.encode(frames.flip(1))[0].numpy()).all()
        assert (rows["picture_fast"][position] == picture.encode(frames[:, ::2])[0].numpy()).all()
        assert (rows["seconds"][position] == clip.seconds.numpy()).all()
        assert bool(rows["has_sound"][position]) == (clip.sound is not None)
        heard = torch.zeros(1, 8, 800) if clip.sound is None else clip.sound[None]
        assert (rows["sound"][position] == sound.encode(heard)[0].numpy()).all()
        assert (rows["thumbnails"][position] == clip.frames.numpy()).all()
        assert cache.info.videos[int(rows["video"][position])][0] == clip.video


def test_reversed_codes_are_not_the_codes_turned_round(cache: LatentCache):
    # If they were, a test that the arrow of time does not leak would say nothing with this codec.
    forwards, backwards = cache.rows["picture"].to_array(), cache.rows["picture_reversed"].to_array()
    assert (forwards[:, ::-1] != backwards).any()


def test_a_file_that_cannot_be_read_is_listed_with_its_reason(cache: LatentCache, videos: list[Path]):
    ((name, reason),) = cache.info.skipped
    assert name == str(videos[-1])
    assert reason


def test_a_clip_that_fails_in_the_middle_is_listed_and_replaced_by_nothing(
    videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = VideoSource(videos[:2], clip_settings(CODECS, 8))
    read = source.read

    def failing(index: int, generator: np.random.Generator) -> Clip:
        if index in {1, 5}:
            raise MediaError("a hole in the file")
        return read(index, generator)

    monkeypatch.setattr(source, "read", failing)
    info = encode_videos(source, CODECS, tmp_path / "OUT.zarr", dataclasses.replace(OPTIONS, heldout=0.0, batch_size=4))
    assert info is not None
    assert [reason for _, reason in info.skipped] == [
        "clip at frame 6: a hole in the file",
        "clip at frame 12: a hole in the file",
    ]
    starts = LatentCache(tmp_path / "OUT.zarr").rows["seconds"].to_array()[:, 0]
    assert starts.tolist() == [0.0, 1.2, 0.0, 0.6]


def test_a_video_is_wholly_in_one_split_and_both_splits_have_one(cache: LatentCache):
    video, heldout = cache.rows["video"].to_array(), cache.rows["heldout"].to_array()
    held = {index: set(heldout[video == index].tolist()) for index in range(3)}
    assert all(len(values) == 1 for values in held.values())
    assert {True, False} == set().union(*held.values())
    assert len(LatentSource(cache.path, 4, "train")) > 0
    assert len(LatentSource(cache.path, 4, "heldout")) > 0


def test_videos_are_known_by_the_hash_of_their_content(cache: LatentCache, videos: list[Path]):
    for name, digest in cache.info.videos:
        assert hashlib.sha256(Path(name).read_bytes()).hexdigest() == digest


def test_statistics_tell_flicker_from_motion(cache: LatentCache, videos: list[Path]):
    statistics = cache.info.statistics
    assert [scale["grid"] for scale in statistics["picture"]] == [[1, 1], [2, 2]]
    assert 0.2 < statistics["picture"][1]["changed"] < 0.6  # half of the picture flashes
    num_still = 0
    for clip in clips_of(videos):
        for frame, following in itertools.pairwise(clip.frames.int()):
            quarters = (following - frame).abs().unfold(1, 8, 8).unfold(2, 8, 8).float().mean(dim=(0, 3, 4))
            num_still += int((quarters < 2).sum())
    assert statistics["still"]["num_still"] == num_still > 50
    assert statistics["still"]["changed"] < 0.1
    assert statistics["sound"][0]["vocabulary"] == 8


def test_videos_must_be_read_as_the_codec_was_trained(videos: list[Path], tmp_path: Path):
    source = VideoSource(videos[:1], dataclasses.replace(CLIPS, num_frames=8, height=32, width=32))
    with pytest.raises(SettingsError, match="but the codecs were trained on"):
        encode_videos(source, CODECS, tmp_path / "OUT.zarr", OPTIONS)


def test_without_a_readable_clip_there_is_no_cache(videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = VideoSource(videos[:1], clip_settings(CODECS, 8))

    def failing(index: int, generator: np.random.Generator) -> Clip:
        raise MediaError("gone")

    monkeypatch.setattr(source, "read", failing)
    with pytest.raises(CacheError, match="no clip could be encoded.*3 skipped"):
        encode_videos(source, CODECS, tmp_path / "OUT.zarr", OPTIONS)
    assert not list(tmp_path.iterdir())


def source_of(videos: list[Path]) -> VideoSource:
    return VideoSource(videos, clip_settings(CODECS, 8))


def content_of(path: Path) -> dict[str, bytes]:
    """Every file of a cache."""
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_build_that_was_stopped_goes_on_and_gives_the_same_bytes(
    path: Path, videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out, save, saved = tmp_path / "OUT.zarr", Work.save, []

    def stopping(self: Work, number: int, unit: Unit) -> None:
        if len(saved) in {1, 3}:
            saved.append(-1)
            raise KeyboardInterrupt
        save(self, number, unit)
        saved.append(number)

    monkeypatch.setattr(Work, "save", stopping)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            encode_videos(source_of(videos), CODECS, out, OPTIONS)
        with pytest.raises(CacheError, match="OUT.zarr is not finished: run the same `python -m tools.latents build`"):
            LatentCache(out)
    assert encode_videos(source_of(videos), CODECS, out, OPTIONS) is not None
    assert saved == [0, -1, 1, -1, 2, 3, 4]
    assert content_of(out) == content_of(path)
    assert [path.name for path in tmp_path.iterdir()] == ["OUT.zarr"]


def test_parts_give_the_bytes_of_the_whole_in_any_order(path: Path, videos: list[Path], tmp_path: Path):
    out = tmp_path / "OUT.zarr"
    for number in (3, 1, 2):
        assert not out.exists()
        done = encode_videos(source_of(videos), CODECS, out, dataclasses.replace(OPTIONS, part=(number, 3)))
    assert done is not None
    assert content_of(out) == content_of(path)


def test_workers_give_the_same_bytes(path: Path, videos: list[Path], tmp_path: Path):
    encode_videos(source_of(videos), CODECS, tmp_path / "OUT.zarr", dataclasses.replace(OPTIONS, num_workers=2))
    assert content_of(tmp_path / "OUT.zarr") == content_of(path)


def test_what_workers_read_for_a_gpu_is_what_is_read_here(videos: list[Path]):
    source, jobs = source_of(videos), [(0, [0, 1]), (1, [4, 8])]
    work = partial(read_and, itself, source)
    for job, reading in run_in_children(work, jobs, lambda _: 60.0, 1, WORKER_MEMORY_BYTES):
        assert isinstance(reading, Reading)
        expected = read_clips(source, job[1])
        assert reading.batch is not None
        assert expected.batch is not None
        assert (reading.videos, reading.skipped) == (expected.videos, expected.skipped)
        for name in ("frames", "seconds", "sound", "has_sound"):
            assert torch.equal(getattr(reading.batch, name), getattr(expected.batch, name))


def test_a_finished_build_is_left_alone_and_another_is_refused(path: Path, videos: list[Path]):
    before = content_of(path)
    assert encode_videos(source_of(videos), CODECS, path, OPTIONS) == LatentCache(path).info
    with pytest.raises(
        CacheError, match="exists already, made otherwise: build.batch_size is 2 there and 3 here; give"
    ):
        encode_videos(source_of(videos), CODECS, path, dataclasses.replace(OPTIONS, batch_size=3))
    with pytest.raises(CacheError, match="1 videos are missing here, first .*2.mp4"):
        encode_videos(source_of(videos[:2]), CODECS, path, OPTIONS)
    assert content_of(path) == before
    assert not work_folder(path).exists() or not list(work_folder(path).glob("units/*"))


def test_a_begun_build_is_not_continued_as_another(videos: list[Path], tmp_path: Path):
    out, half = tmp_path / "OUT.zarr", dataclasses.replace(OPTIONS, part=(1, 2))
    assert encode_videos(source_of(videos), CODECS, out, half) is None
    other = dataclasses.replace(half, thumbnail_side=8)
    with pytest.raises(
        CacheError, match="was begun otherwise: build.thumbnail_side is 32 there and 8 here; go on with"
    ):
        encode_videos(source_of(videos), CODECS, out, other)
    assert encode_videos(source_of(videos), CODECS, out, dataclasses.replace(other, overwrite=True)) is None
    assert encode_videos(source_of(videos), CODECS, out, dataclasses.replace(other, part=(2, 2))) is not None
    assert LatentCache(out).info.thumbnail == (8, 8)


def test_a_cache_is_replaced_when_the_new_one_is_complete(videos: list[Path], tmp_path: Path):
    out = tmp_path / "OUT.zarr"
    encode_videos(source_of(videos[:1]), CODECS, out, OPTIONS)
    more = dataclasses.replace(OPTIONS, overwrite=True)
    assert encode_videos(source_of(videos), CODECS, out, dataclasses.replace(more, part=(1, 2))) is None
    assert len(LatentCache(out).info.videos) == 1
    assert encode_videos(source_of(videos), CODECS, out, dataclasses.replace(more, part=(2, 2))) is not None
    assert len(LatentCache(out).info.videos) == 3


def test_a_video_that_changes_between_two_runs_of_a_build_is_named(tmp_path: Path):
    paths, out = make_videos(tmp_path / "videos", 2), tmp_path / "OUT.zarr"
    encode_videos(source_of(paths), CODECS, out, dataclasses.replace(OPTIONS, part=(1, 2)))
    write_video(paths[1], torch.zeros(20, 3, 16, 16, dtype=torch.uint8), 10.0)
    with pytest.raises(CacheError, match="1 videos are changed since, first .*1.mp4"):
        encode_videos(source_of(paths), CODECS, out, OPTIONS)


SLOW_BUILD = """
import dataclasses, sys, time
from tests.worldmodel.cache.test_build import CODECS, OPTIONS, Path, Work, encode_videos, source_of

def slow(self, number, unit, save=Work.save):
    save(self, number, unit)
    time.sleep(600 if len(self.done()) > 1 else 0)

Work.save = slow
if __name__ == "__main__":
    paths = list(map(Path, sys.argv[2:]))
    encode_videos(source_of(paths), CODECS, Path(sys.argv[1]), dataclasses.replace(OPTIONS, num_workers=2))
"""


def test_a_killed_build_goes_on_and_gives_the_same_bytes(path: Path, videos: list[Path], tmp_path: Path):
    out, script = tmp_path / "OUT.zarr", tmp_path / "slow.py"
    script.write_text(SLOW_BUILD)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen([sys.executable, str(script), str(out), *map(str, videos)], env=environment) as process:
        while len(Work(out).done()) < 2:
            assert process.poll() is None
            time.sleep(0.1)
        with pytest.raises(
            CacheError, match=f"part 1/1 of .* is being written already by host .*, process {process.pid}"
        ):
            encode_videos(source_of(videos), CODECS, out, OPTIONS)
        process.kill()
    assert encode_videos(source_of(videos), CODECS, out, OPTIONS) is not None
    assert content_of(out) == content_of(path)
    assert not work_folder(out).exists()


def test_a_worker_that_dies_names_what_it_was_reading(videos: list[Path], tmp_path: Path):
    codecs = [DyingCodec(), FakeSoundCodec()]
    with pytest.raises(MediaError, match=r"the decoder ended with status 7 while unit \d was encoded, of .*0.mp4"):
        encode_videos(source_of(videos[:1]), codecs, tmp_path / "OUT.zarr", dataclasses.replace(OPTIONS, num_workers=2))


class DyingCodec(FakePictureCodec):
    """Ends its process."""

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        os._exit(7)
