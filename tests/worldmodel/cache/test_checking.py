import json
from pathlib import Path

import numpy as np
import pytest
import torch

from streams.errors import MediaError
from streams.pyav.writer import write_video
from streams.videos import VideoSource
from tests.fake_codecs import FakePictureCodec, FakeSoundCodec, make_videos
from tests.worldmodel.cache.small_cache import write
from worldmodel.cache.build import BuildOptions, encode_videos
from worldmodel.cache.checking import check_codes, check_files, check_values
from worldmodel.cache.encoding import clip_settings
from worldmodel.cache.latents import LatentCache
from worldmodel.cache.store import Profile
from worldmodel.cache.writer import LatentWriter
from worldmodel.errors import CacheError

CODECS = [FakePictureCodec(), FakeSoundCodec()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three videos and their cache."""
    folder = tmp_path_factory.mktemp("built")
    source = VideoSource(make_videos(folder / "videos", silent=(1,)), clip_settings(CODECS, 8))
    encode_videos(source, CODECS, folder / "OUT.zarr", BuildOptions(0.3, progress=False))
    return folder


@pytest.mark.parametrize("profile", ["mapped", "archive"])
def test_a_change_of_any_byte_of_any_file_is_found(tmp_path: Path, profile: Profile):
    write(tmp_path / "OUT.zarr", num_clips=3, profile=profile)
    files = sorted(path for path in (tmp_path / "OUT.zarr").rglob("*") if path.is_file())
    assert check_files(tmp_path / "OUT.zarr") == len(files)
    generator = np.random.default_rng(0)
    for file in files:
        content = file.read_bytes()
        places = {0, len(content) - 1, *generator.integers(0, len(content), 8).tolist()}
        for place in places:
            damaged = bytearray(content)
            damaged[place] ^= 1 << int(generator.integers(8))
            file.write_bytes(damaged)
            with pytest.raises(CacheError, match=str(file.relative_to(tmp_path / "OUT.zarr"))):
                check_files(tmp_path / "OUT.zarr")
        file.write_bytes(content)
    check_files(tmp_path / "OUT.zarr")


def test_every_broken_file_is_named(tmp_path: Path):
    write(tmp_path / "OUT.zarr")
    (tmp_path / "OUT.zarr" / "picture" / "c" / "0" / "0" / "0").unlink()
    sound = tmp_path / "OUT.zarr" / "sound" / "c" / "0" / "0" / "0"
    sound.write_bytes(sound.read_bytes()[:-1])
    with pytest.raises(CacheError, match="2 files .*picture/c/0/0/0 .No such file.*sound/c/0/0/0 .damaged."):
        check_files(tmp_path / "OUT.zarr")


def test_a_cache_of_format_1_is_checked_by_its_chunks(tmp_path: Path):
    write(tmp_path / "OUT.zarr")
    file = tmp_path / "OUT.zarr" / "zarr.json"
    content = json.loads(file.read_text())
    new = ("digest", "crc32_of_descriptions", "codecs", "clips", "build")
    content["attributes"] = {name: value for name, value in content["attributes"].items() if name not in new}
    content["attributes"]["format_version"] = 1
    file.write_text(json.dumps(content))
    assert check_files(tmp_path / "OUT.zarr") == 1 + len(LatentCache(tmp_path / "OUT.zarr").rows)


def test_codes_beyond_their_vocabulary_are_found(built: Path, tmp_path: Path):
    cache = LatentCache(built / "OUT.zarr")
    check_values(cache)
    for name, value in (("picture_fast", 16), ("sound", 8), ("video", 3)):
        rows = {each: mapped.to_array() for each, mapped in cache.rows.items()}
        rows[name][7] = value
        with LatentWriter(tmp_path / f"{name}.zarr", cache.info) as writer:
            writer.append(rows)
            writer.finish([], {})
        with pytest.raises(CacheError, match=f"{name}: clip 7 holds {value}, beyond"):
            check_values(LatentCache(tmp_path / f"{name}.zarr"))


def test_a_cache_is_checked_against_its_videos_and_codec(built: Path):
    cache = LatentCache(built / "OUT.zarr")
    sample = check_codes(cache, CODECS, 4, np.random.default_rng(0))
    assert sample.shares == {"picture": 1.0, "sound": 1.0}
    assert sample.num_clips == 4
    assert 5 < sample.psnr < 60
    assert 0 <= sample.darkest < sample.brightest <= 255

    class OtherCodec(FakePictureCodec):
        def encode(self, frames: torch.Tensor) -> torch.Tensor:
            return super().encode(frames) ^ 1

    with pytest.raises(CacheError, match="only .* of the codes .* are what the codec gives now"):
        check_codes(cache, [OtherCodec(), FakeSoundCodec()], 4, np.random.default_rng(0))


def test_what_the_codes_decode_to_is_compared_with_the_frames(built: Path):
    cache = LatentCache(built / "OUT.zarr")
    source = VideoSource([built / "videos" / f"{number}.mp4" for number in range(3)], clip_settings(CODECS, 8))
    errors = []
    for index in range(len(source)):
        frames = source.read(index, np.random.default_rng(0)).frames
        codes = torch.from_numpy(cache.rows["picture"][index].astype(np.int64))
        grey = torch.floor((codes[:, 1:].float() / 8 - 1 + 1) * 127.5 + 0.5)
        shown = grey.unflatten(1, (2, 2)).repeat_interleave(8, 1).repeat_interleave(8, 2)
        errors.append(((frames.float() - shown[:, None]) ** 2).mean())
    expected = 10 * np.log10(255**2 / np.mean(errors))
    assert check_codes(cache, CODECS, 99, np.random.default_rng(0)).psnr == pytest.approx(expected, abs=0.05)


def test_a_video_that_changed_since_is_noticed(tmp_path: Path):
    videos = make_videos(tmp_path / "videos", 1)
    source = VideoSource(videos, clip_settings(CODECS, 8))
    encode_videos(source, CODECS, tmp_path / "OUT.zarr", BuildOptions(0.0, progress=False))
    write_video(videos[0], torch.zeros(20, 3, 16, 16, dtype=torch.uint8), 10.0)
    with pytest.raises(MediaError, match="0.mp4 is gone or has changed since the cache was made"):
        check_codes(LatentCache(tmp_path / "OUT.zarr"), CODECS, 1, np.random.default_rng(0))
    videos[0].unlink()
    with pytest.raises(MediaError, match="0.mp4 is gone or has changed since the cache was made"):
        check_codes(LatentCache(tmp_path / "OUT.zarr"), CODECS, 1, np.random.default_rng(0))
