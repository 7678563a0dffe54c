import dataclasses
import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from streams.clip import Clip, to_float
from streams.errors import MediaError
from streams.videos import VideoSource
from tests.fake_codecs import CLIPS, FakePictureCodec, FakeSoundCodec, make_videos
from worldmodel.cache import encoding
from worldmodel.cache.encoding import by_kind, check_codes, clip_settings, encode_videos, heldout_of, thumbnail_size
from worldmodel.cache.latents import LatentCache, LatentSource
from worldmodel.errors import CacheError, SettingsError

CODECS = [FakePictureCodec(), FakeSoundCodec()]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three videos, one of them silent, and a file that is no video."""
    folder = tmp_path_factory.mktemp("videos")
    paths = make_videos(folder, silent=(1,))
    (folder / "broken.mp4").write_bytes(b"no video at all")
    return [*paths, folder / "broken.mp4"]


@pytest.fixture(scope="module")
def cache(videos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> LatentCache:
    path = tmp_path_factory.mktemp("cache") / "OUT.zarr"
    encode_videos(VideoSource(videos, clip_settings(CODECS, 8)), CODECS, path, 0.3, batch_size=2, progress=False)
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
    info = encode_videos(source, CODECS, tmp_path / "OUT.zarr", 0.0, batch_size=4, progress=False)
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


def test_the_split_is_stable_when_videos_are_added():
    hashes = [hashlib.sha256(bytes([number])).hexdigest() for number in range(60)]
    few, many = heldout_of(hashes[:40], 0.2), heldout_of(hashes, 0.2)
    assert few == many[:40]
    assert few[::-1] == heldout_of(hashes[:40][::-1], 0.2)
    assert 4 <= sum(many) <= 20


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_two_videos_are_split_whatever_the_share(share: float):
    hashes = [hashlib.sha256(bytes([number])).hexdigest() for number in range(2)]
    assert sorted(heldout_of(hashes, share)) == [False, True]


def test_copies_of_one_video_are_never_in_both_splits():
    hashes = [hashlib.sha256(bytes([number % 3])).hexdigest() for number in range(9)]
    held = heldout_of(hashes, 1e-9)
    assert held == held[:3] * 3
    assert sum(held) == 3
    assert heldout_of(hashes[:1] * 2, 0.5) in ([True, True], [False, False])


def test_a_share_of_none_or_all_is_taken_at_its_word():
    hashes = [hashlib.sha256(bytes([number])).hexdigest() for number in range(3)]
    assert heldout_of(hashes, 0.0) == [False] * 3
    assert heldout_of(hashes, 1.0) == [True] * 3
    with pytest.raises(SettingsError, match="heldout 1.5 is not a share"):
        heldout_of(hashes, 1.5)


def test_codecs_must_fit_each_other():
    with pytest.raises(SettingsError, match="give one picture codec and at most one sound codec"):
        by_kind([FakeSoundCodec()])
    with pytest.raises(SettingsError, match="give one picture codec"):
        by_kind([FakePictureCodec(), FakePictureCodec()])
    other = FakeSoundCodec(dataclasses.replace(CLIPS, frames_per_second=5.0))
    with pytest.raises(SettingsError, match="sample time differently"):
        by_kind([FakePictureCodec(), other])


def test_videos_must_be_read_as_the_codec_was_trained(videos: list[Path], tmp_path: Path):
    source = VideoSource(videos[:1], dataclasses.replace(CLIPS, num_frames=8, height=32, width=32))
    with pytest.raises(SettingsError, match="but the codecs were trained on"):
        encode_videos(source, CODECS, tmp_path / "OUT.zarr", progress=False)


def test_without_a_readable_clip_there_is_no_cache(videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = VideoSource(videos[:1], clip_settings(CODECS, 8))

    def failing(index: int, generator: np.random.Generator) -> Clip:
        raise MediaError("gone")

    monkeypatch.setattr(source, "read", failing)
    with pytest.raises(CacheError, match="no clip could be encoded.*3 skipped"):
        encode_videos(source, CODECS, tmp_path / "OUT.zarr", progress=False)
    assert not list(tmp_path.iterdir())


def test_thumbnails_show_all_of_a_frame():
    assert thumbnail_size(dataclasses.replace(CLIPS, height=64, width=64), 32) == (32, 32)
    assert thumbnail_size(dataclasses.replace(CLIPS, height=128, width=224), 32) == (32, 56)
    assert thumbnail_size(CLIPS, 32) == (16, 16)


def test_a_cache_is_checked_against_its_videos_and_codec(cache: LatentCache):
    assert check_codes(cache.path, CODECS, 4, np.random.default_rng(0)) == 1

    class OtherCodec(FakePictureCodec):
        def encode(self, frames: torch.Tensor) -> torch.Tensor:
            return super().encode(frames) ^ 1

    with pytest.raises(CacheError, match="only .* of the codes .* are what the codec gives now"):
        check_codes(cache.path, [OtherCodec(), FakeSoundCodec()], 4, np.random.default_rng(0))


def test_a_video_that_changed_since_is_noticed(cache: LatentCache, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encoding, "content_hash", lambda path: "other")
    with pytest.raises(MediaError, match="is gone or has changed since the cache was made"):
        check_codes(cache.path, CODECS, 1, np.random.default_rng(0))
