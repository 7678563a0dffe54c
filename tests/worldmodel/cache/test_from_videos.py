import itertools
import pickle
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch

from streams.loader import Loader
from streams.settings import LoaderSettings
from streams.videos import VideoSource
from tests.fake_codecs import FakePictureCodec, FakeSoundCodec, make_videos
from tests.worldmodel.tiny_run import tiny_run
from worldmodel.cache.build import BuildOptions, encode_videos
from worldmodel.cache.encoding import clip_settings
from worldmodel.cache.from_videos import CodingLoader, VideoWindows, WindowEncoder
from worldmodel.cache.latents import CodeBatch, LatentSource
from worldmodel.cache.windows import Windows

FAKES = [FakePictureCodec(), FakeSoundCodec()]
CLIP_FRAMES, NUM_FRAMES, THUMBNAIL = 9, 4, (8, 8)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> VideoSource:
    """Three videos, one of them silent."""
    return VideoSource(make_videos(tmp_path_factory.mktemp("videos"), silent=(1,)), clip_settings(FAKES, CLIP_FRAMES))


def coders() -> list[list]:
    """Fake codecs, trained-like ones with noise that stickiness must tame, and pictures alone."""
    run = tiny_run()
    for codec in (run.picture, run.sound):
        codec.fingerprint = f"tiny-{codec.kind}"  # type: ignore[union-attr]
    return [FAKES, [run.picture, run.sound], [run.picture]]


@pytest.fixture(params=[0, 1, 2], ids=["fake", "real", "mute"], scope="module")
def codecs(request: pytest.FixtureRequest) -> list:
    return coders()[request.param]


@pytest.fixture(scope="module")
def cached(videos: VideoSource, codecs: list, tmp_path_factory: pytest.TempPathFactory) -> LatentSource:
    path = tmp_path_factory.mktemp("cache") / "OUT.zarr"
    encode_videos(videos, codecs, path, BuildOptions(0.0, thumbnail_side=THUMBNAIL[0], progress=False))
    return LatentSource(path, NUM_FRAMES)


def windows_of(videos: VideoSource, num_frames: int = NUM_FRAMES, **options: bool) -> VideoWindows:
    return VideoWindows(videos, range(len(videos)), Windows(CLIP_FRAMES, num_frames, **options), THUMBNAIL)


def assert_equal(one: CodeBatch, other: CodeBatch) -> None:
    for entry in fields(CodeBatch):
        here, there = getattr(one, entry.name), getattr(other, entry.name)
        assert here.dtype == there.dtype, entry.name
        assert torch.equal(here, there), entry.name


def test_every_item_has_the_codes_of_the_cache(videos: VideoSource, codecs: list, cached: LatentSource):
    source = windows_of(videos)
    encode = WindowEncoder(codecs, source.windows)
    assert len(source) == len(cached) == 18
    for index, seed in itertools.product(range(len(source)), range(2)):
        item = source.read(index, np.random.default_rng(seed))
        assert_equal(encode(source.collate([item])), cached.read(index, np.random.default_rng(seed)))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_are_those_of_the_cache_in_the_same_order(
    num_workers: int, videos: VideoSource, codecs: list, cached: LatentSource
):
    source = windows_of(videos)
    settings = LoaderSettings(batch_size=5, num_workers=num_workers)
    coding = CodingLoader(Loader(source, settings, 3, 20), WindowEncoder(codecs, source.windows, chunk_clips=2))
    plain = Loader(cached, LoaderSettings(batch_size=5, num_workers=0), 3, 20)
    for batch in itertools.islice(coding, 4):
        assert_equal(batch, next(plain))
        assert coding.position == plain.position
    assert coding.waited_seconds == coding.loader.waited_seconds > 0
    coding.close()
    plain.close()


def test_codes_lie_in_the_middle_of_a_sticky_clip_and_not_at_a_beginning(videos: VideoSource):
    # If a clip were encoded from the window's first frame on, some codes would differ: else the tests above say little.
    source = windows_of(videos)
    encode = WindowEncoder(FAKES, source.windows)
    differing = 0
    for index in range(len(source)):
        clip, start = source.read(index, np.random.default_rng(1))
        codes = encode(source.collate([(clip, start)]))
        fresh = FAKES[0].encode(clip.frames[None, start : start + NUM_FRAMES] / 127.5 - 1)
        differing += int((codes.picture != fresh).sum())
    assert differing > 0


def test_chunks_of_any_size_give_the_same_codes(videos: VideoSource, codecs: list):
    source = windows_of(videos)
    batch = source.collate([source.read(index, np.random.default_rng(index)) for index in range(7)])
    whole = WindowEncoder(codecs, source.windows)(batch)
    for chunk_clips in (1, 3, 7):
        assert_equal(WindowEncoder(codecs, source.windows, chunk_clips)(batch), whole)


def test_an_encoder_never_holds_more_clips_than_its_chunk(videos: VideoSource):
    sizes = []

    class Counting(FakePictureCodec):
        def encode_views(self, frames: torch.Tensor, lengths: Any = None) -> tuple:
            sizes.append(len(frames))
            return super().encode_views(frames)

    source = windows_of(videos)
    batch = source.collate([source.read(index, np.random.default_rng(index)) for index in range(7)])
    WindowEncoder([Counting()], source.windows, 3)(batch)
    assert sizes == [3, 3, 1]


def test_codes_carry_no_gradient_and_autocast_does_not_reach_them(videos: VideoSource):
    source = windows_of(videos)
    run = tiny_run()
    run.picture.requires_grad_(True)
    precisions = set()
    run.picture.encoder.register_forward_hook(lambda module, given, out: precisions.add((out.dtype, out.requires_grad)))
    encode = WindowEncoder([run.picture], source.windows)
    batch = source.collate([source.read(index, np.random.default_rng(index)) for index in range(4)])
    plain = encode(batch)
    with torch.autocast("cpu", torch.bfloat16):
        assert_equal(encode(batch), plain)
    assert precisions == {(torch.float32, False)}


def test_threads_are_as_before_after_encoding(videos: VideoSource):
    source = windows_of(videos)
    before = torch.get_num_threads()
    seen = []

    class Watching(FakePictureCodec):
        def encode_views(self, frames: torch.Tensor, lengths: Any = None) -> tuple:
            seen.append(torch.get_num_threads())
            return super().encode_views(frames)

    WindowEncoder([Watching()], source.windows)(source.collate([source.read(0, np.random.default_rng(0))]))
    assert (seen, torch.get_num_threads()) == ([1], before)


def test_windows_of_some_clips_say_where_each_item_is(videos: VideoSource):
    source = VideoWindows(videos, [4, 1], Windows(CLIP_FRAMES, NUM_FRAMES), THUMBNAIL)
    assert len(source) == 4
    assert [source.path_of(item) for item in range(4)] == [videos.path_of(clip) for clip in (4, 4, 1, 1)]
    clip, _ = source.read(2, np.random.default_rng(0))
    assert clip.video == str(videos.clips[1].path)
    assert clip.seconds[0] * 10 == pytest.approx(videos.clips[1].start)


def test_a_batch_is_moved_and_split_and_survives_its_way_from_a_worker(videos: VideoSource):
    source = windows_of(videos)
    batch = source.collate([source.read(index, np.random.default_rng(index)) for index in range(5)])
    assert batch.thumbnails.shape == (5, NUM_FRAMES, 3, *THUMBNAIL)
    moved = pickle.loads(pickle.dumps(batch)).to("meta")
    assert moved.clips.frames.device.type == moved.thumbnails.device.type == "meta"
    assert moved.starts == batch.starts
    parts = list(batch.split(2))
    assert [part.starts for part in parts] == [batch.starts[:2], batch.starts[2:4], batch.starts[4:]]
    assert torch.equal(torch.cat([part.clips.sound for part in parts]), batch.clips.sound)
    assert torch.equal(torch.cat([part.thumbnails for part in parts]), batch.thumbnails)
    assert [video for part in parts for video in part.clips.videos] == batch.clips.videos


def test_closing_ends_the_workers(videos: VideoSource):
    source = windows_of(videos)
    inner = Loader(source, LoaderSettings(batch_size=2, num_workers=1), 0)
    loader = CodingLoader(inner, WindowEncoder(FAKES, source.windows))
    next(iter(loader))
    assert inner.workers
    loader.close()
    assert not inner.workers
