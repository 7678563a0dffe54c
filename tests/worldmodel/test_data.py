import hashlib
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from streams import video as video_module
from streams.errors import MediaError
from streams.loader import Loader
from streams.settings import LoaderSettings
from tests.worldmodel.training.toy import Vectors
from tests.worldmodel.whole_run import LOADER, WholeRun
from worldmodel import data
from worldmodel.cache.from_videos import CodingLoader
from worldmodel.cache.latents import CodeBatch, LatentCache
from worldmodel.codecs.store import Codec, load_codec
from worldmodel.data import hashes_of, micro_batches, open_data, open_videos, opened_cache, split_clips
from worldmodel.errors import SettingsError
from worldmodel.settings import TrainSettings
from worldmodel.training import cluster
from worldmodel.training.cluster import Ranks


@pytest.fixture(scope="module")
def codecs(whole_run: WholeRun) -> list[Codec]:
    return [load_codec(whole_run.picture), load_codec(whole_run.sound)]


@pytest.fixture
def settings(whole_run: WholeRun) -> TrainSettings:
    return whole_run.settings_from_videos


def assert_equal(one: CodeBatch, other: CodeBatch) -> None:
    for entry in fields(CodeBatch):
        assert torch.equal(getattr(one, entry.name), getattr(other, entry.name)), entry.name


@pytest.mark.parametrize("num_workers", [0, 1])
def test_videos_give_the_batches_and_the_preview_of_their_cache(
    num_workers: int, whole_run: WholeRun, settings: TrainSettings, codecs: list[Codec]
):
    cached = open_data(whole_run.settings, codecs)
    made = open_data(replace(settings, loader=replace(LOADER, num_workers=num_workers)), codecs)
    assert_equal(made.preview, cached.preview)
    loaders = made.make_loader(8), cached.make_loader(8)
    for _ in range(6):  # 24 items, more than an epoch
        assert_equal(*map(next, loaders))
        assert loaders[0].position == loaders[1].position
    for loader in loaders:
        loader.close()


class Blocks(Vectors):
    """Vectors, neighbours of which are read together."""

    blocks = (7, 6, 7)

    def read_together(self, indices: list[int], generators: list[np.random.Generator]) -> list[torch.Tensor]:
        return [self.read(*each) for each in zip(indices, generators, strict=True)]


@pytest.mark.parametrize("source", [Vectors(), Blocks()])
def test_micro_batches_of_all_processes_are_together_the_batch(source: Vectors):
    whole = LoaderSettings(batch_size=8, num_turns=2, num_workers=0)
    micro = micro_batches(whole, 4)
    assert micro.batch_size == 2
    batches = Loader(source, whole, seed=0)
    parts = [Loader(source, micro, 0, rank=rank, num_ranks=2) for rank in range(2)]
    for _ in range(6):
        found = torch.cat([next(part) for _ in range(4) for part in parts])
        assert torch.equal(next(batches), found)
        assert parts[0].position == batches.position


@pytest.mark.parametrize("accumulate", [0, 3])
def test_micro_batches_that_do_not_divide_the_batch_are_refused(accumulate: int):
    with pytest.raises(SettingsError, match=f"training.accumulate={accumulate} does not divide loader.batch_size=8"):
        micro_batches(LoaderSettings(batch_size=8), accumulate)


def test_the_clips_held_out_are_those_of_the_cache(whole_run: WholeRun, settings: TrainSettings, codecs: list[Codec]):
    videos = open_videos(settings, codecs)
    train, heldout = split_clips(videos, settings)
    cache = LatentCache(whole_run.cache)
    assert train == cache.clips_of("train").tolist()
    assert heldout == cache.clips_of("heldout").tolist()


@pytest.mark.parametrize(("share", "what"), [(0.0, "held out"), (1.0, "left to train on")])
def test_an_empty_split_is_refused(share: float, what: str, settings: TrainSettings, codecs: list[Codec]):
    settings = replace(settings, encoding=replace(settings.encoding, heldout=share))
    with pytest.raises(MediaError, match=rf"none of the 6 videos in .* is {what}: give more videos, or another share"):
        open_data(settings, codecs)


def test_one_video_alone_cannot_be_held_out_and_trained_on(
    whole_run: WholeRun, settings: TrainSettings, codecs: list[Codec]
):
    one = sorted(whole_run.videos.glob("*.mp4"))[0]
    with pytest.raises(MediaError, match=f"none of the 1 videos in {one} is (held out|left to train on)"):
        open_data(replace(settings, videos=str(one)), codecs)


def test_a_window_longer_than_the_clips_is_refused_before_a_video_is_opened(
    settings: TrainSettings, codecs: list[Codec]
):
    with pytest.raises(SettingsError, match="num_frames 17 does not fit: the clips of nowhere have 16 frames"):
        open_data(replace(settings, videos="nowhere", num_frames=17), codecs)


def test_videos_shorter_than_a_clip_are_an_error_that_says_what_a_clip_needs(
    settings: TrainSettings, codecs: list[Codec]
):
    settings = replace(settings, encoding=replace(settings.encoding, clip_frames=400))
    with pytest.raises(MediaError, match=r"no clip can be read from 6 files.*too short .*a clip needs 40\.00 s"):
        open_data(settings, codecs)


def test_a_damaged_file_is_left_out_and_named(
    whole_run: WholeRun, settings: TrainSettings, codecs: list[Codec], tmp_path: Path, capsys: pytest.CaptureFixture
):
    folder = tmp_path / "videos"
    shutil.copytree(whole_run.videos, folder)
    (folder / "broken.mp4").write_bytes(b"no video at all")
    videos = open_videos(replace(settings, videos=str(folder)), codecs)
    assert len(videos.videos) == 6
    assert capsys.readouterr().out.startswith(f"left out: {folder / 'broken.mp4'}: ")


def test_a_video_that_cannot_be_read_any_more_is_passed_over_and_no_held_out_one_takes_its_place(
    whole_run: WholeRun, settings: TrainSettings, codecs: list[Codec], tmp_path: Path, capsys: pytest.CaptureFixture
):
    folder = tmp_path / "videos"
    shutil.copytree(whole_run.videos, folder)
    settings = replace(settings, videos=str(folder))
    videos = open_videos(settings, codecs)
    train, heldout = split_clips(videos, settings)
    found = open_data(settings, codecs)
    gone = videos.clips[train[-1]].path
    gone.write_bytes(b"gone")
    loader = found.make_loader(0)
    assert isinstance(loader, data.CodingLoader)
    read = [video for _ in range(6) for video in next(loader.loader).clips.videos]
    loader.close()
    assert str(gone) not in read
    assert not set(read) & {str(videos.clips[clip].path) for clip in heldout}
    assert set(read) == {str(videos.clips[clip].path) for clip in train} - {str(gone)}
    assert capsys.readouterr().err.count("passed over: ") == 1


def test_without_a_sound_codec_the_codes_have_no_sound(settings: TrainSettings, codecs: list[Codec]):
    found = open_data(settings, codecs[:1])
    loader = found.make_loader(0)
    batch = next(loader)
    assert batch.sound.shape == (4, 8, 0)
    assert batch.has_sound.all()


def test_hashes_are_of_the_content_and_every_process_makes_its_share(
    settings: TrainSettings, codecs: list[Codec], monkeypatch: pytest.MonkeyPatch
):
    videos = open_videos(settings, codecs)
    expected = [hashlib.sha256(video.path.read_bytes()).hexdigest() for video in videos.videos]
    assert hashes_of(videos) == expected
    texts, hashed = [], []
    content_hash = video_module.content_hash
    monkeypatch.setattr(video_module, "content_hash", lambda path: hashed.append(path) or content_hash(path))

    def send(text: str) -> list[str]:
        texts.append(text)
        raise InterruptedError("the others have sent nothing yet")

    monkeypatch.setattr(cluster, "texts", send)
    for rank in range(4):  # of 6 videos: shares of 2, 2, 1 and 1
        monkeypatch.setattr(cluster, "find_ranks", lambda rank=rank: Ranks(rank, 4))
        with pytest.raises(InterruptedError):
            hashes_of(videos)
    assert sorted(hashed) == sorted(video.path for video in videos.videos)
    monkeypatch.setattr(cluster, "texts", lambda text: texts)
    assert hashes_of(videos) == expected


def test_processes_that_see_different_videos_are_told(
    settings: TrainSettings, codecs: list[Codec], monkeypatch: pytest.MonkeyPatch
):
    videos = open_videos(settings, codecs)
    monkeypatch.setattr(cluster, "texts", lambda text: [text, f"0{text}"])
    with pytest.raises(MediaError, match="process 1 finds other videos or clips than process 0: every machine must"):
        hashes_of(videos)


def test_the_temporary_cache_holds_the_codes_of_the_real_one_and_goes(
    whole_run: WholeRun, settings: TrainSettings, codecs: list[Codec], monkeypatch: pytest.MonkeyPatch
):
    real = LatentCache(whole_run.cache)
    with opened_cache(settings, codecs, 100) as cache:
        assert cache.num_clips == real.num_clips
        for name, rows in cache.rows.items():
            assert (rows.to_array() == real.rows[name].to_array()).all()
        assert cache.info.videos == real.info.videos
    assert not cache.path.exists()
    monkeypatch.setattr(data, "MAX_COUNTED_CLIPS", 3)
    with opened_cache(settings, codecs, 2) as cache:
        assert (len(cache.clips_of("train")), len(cache.clips_of("heldout"))) == (3, 2)


def test_the_cache_of_a_run_is_opened_where_it_is(whole_run: WholeRun, codecs: list[Codec]):
    with opened_cache(whole_run.settings, codecs, 2) as cache:
        assert cache.path == whole_run.cache
    assert cache.path.exists()


@pytest.fixture
def two_folders(whole_run: WholeRun, tmp_path: Path) -> dict[str, float]:
    names = sorted(whole_run.videos.glob("*.mp4"))
    for number, name in enumerate(names):
        folder = tmp_path / ("often" if number % 2 else "seldom")
        folder.mkdir(exist_ok=True)
        shutil.copy(name, folder)
    return {str(tmp_path / "often"): 3.0, str(tmp_path / "seldom"): 1.0}


def test_several_folders_are_read_by_their_weights(
    two_folders: dict[str, float], settings: TrainSettings, codecs: list[Codec]
):
    loader = open_data(replace(settings, videos=two_folders), codecs).make_loader(0)
    assert isinstance(loader, CodingLoader)
    read = [Path(video).parent.name for _ in range(10) for video in next(loader.loader).clips.videos]
    loader.close()
    assert read.count("often") / len(read) == pytest.approx(0.75, abs=0.05)


def test_a_folder_of_which_nothing_is_left_to_train_on_is_an_error(
    two_folders: dict[str, float], settings: TrainSettings, codecs: list[Codec], tmp_path: Path
):
    often = tmp_path / "often"
    with pytest.raises(MediaError, match=f"{often}: no video of it is left to train on, so that its weight 3 cannot"):
        open_data(replace(settings, videos={str(tmp_path): 1.0, str(often): 3.0}), codecs)


def test_codes_are_counted_as_often_as_their_folder_is_trained_on(
    two_folders: dict[str, float], settings: TrainSettings, codecs: list[Codec], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(data, "MAX_COUNTED_CLIPS", 4)
    with opened_cache(replace(settings, videos=two_folders), codecs, 1) as cache:
        rows = [int(cache.rows["video"][int(clip)]) for clip in cache.clips_of("train")]
        counted = [Path(cache.info.videos[row][0]).parent.name for row in rows]
    assert sorted(counted) == ["often"] * 3 + ["seldom"]
