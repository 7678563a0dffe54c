import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from streams.loader import Loader
from streams.settings import LoaderSettings
from tests.worldmodel.cache.small_cache import INFO, NUM_CLIPS, PICTURE, rows_of, write
from worldmodel.cache import store
from worldmodel.cache.chunks import MappedRows
from worldmodel.cache.latents import CodeBatch, LatentCache, LatentSource, require_codec
from worldmodel.cache.writer import LatentWriter
from worldmodel.errors import CacheError, SettingsError


def by_zarr(path: Path, mode: Any = "r") -> Any:
    return zarr.open(path, mode=mode)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of several chunks, the last of every array only partly filled."""
    monkeypatch.setattr(store, "CHUNK_BYTES", 2000)
    write(tmp_path / "OUT.zarr", expected_clips=4)
    return tmp_path / "OUT.zarr"


def test_any_zarr_tool_reads_what_was_written(cache: Path):
    group = by_zarr(cache)
    for name, rows in rows_of(INFO, NUM_CLIPS).items():
        array = group[name]
        assert array.dtype == rows.dtype
        assert (array[:] == rows).all()
    assert group.attrs["fingerprints"] == {"picture": "p1", "sound": "s1"}
    assert group["picture"].metadata.dimension_names == ("clip", "frame", "code")


def test_mapped_rows_are_what_zarr_reads(cache: Path):
    group, opened = by_zarr(cache), LatentCache(cache)
    assert opened.num_clips == NUM_CLIPS
    thumbnails = opened.rows["thumbnails"]
    assert isinstance(thumbnails, MappedRows)
    assert len(thumbnails.files) > 1
    for name, rows in opened.rows.items():
        assert (np.stack([rows[clip] for clip in range(NUM_CLIPS)]) == group[name][:]).all()
        assert (rows.to_array() == group[name][:]).all()


def test_the_cache_says_how_it_was_made(cache: Path):
    info = LatentCache(cache).info
    assert info == dataclasses.replace(INFO, skipped=[("c.mp4", "no pictures")], statistics={"still_changes": 0.1})
    assert info.package_version
    assert LatentCache(cache).num_bytes > sum(block.nbytes for block in rows_of(INFO, NUM_CLIPS).values())


def test_a_missing_chunk_is_an_error_that_names_it(cache: Path):
    (cache / "picture" / "c" / "1" / "0" / "0").unlink()
    with pytest.raises(CacheError, match="picture/c/1/0/0 of the latent cache is missing"):
        LatentCache(cache)


def test_there_must_be_a_cache_of_this_format(cache: Path, tmp_path: Path):
    with pytest.raises(CacheError, match="there is no latent cache at .*nothing.zarr: build one"):
        LatentCache(tmp_path / "nothing.zarr")
    attributes = json.loads((cache / "zarr.json").read_text())
    attributes["attributes"]["format_version"] = 99
    del attributes["attributes"]["digest"]
    (cache / "zarr.json").write_text(json.dumps(attributes))
    with pytest.raises(CacheError, match="has cache format 99, expected 2"):
        LatentCache(cache)


def test_an_array_that_was_recompressed_or_removed_is_refused(cache: Path):
    group = by_zarr(cache, mode="a")
    rows = group["picture"][:]
    group.create_array("picture", data=rows, chunks=(4, *rows.shape[1:]), overwrite=True)
    with pytest.raises(CacheError, match="picture is not raw uint16 rows"):
        LatentCache(cache)
    del group["picture"]
    with pytest.raises(CacheError, match="has no array 'picture'"):
        LatentCache(cache)


@pytest.mark.parametrize("given", [{"picture": "p1"}, {"picture": "p2", "sound": "s1"}])
def test_another_codec_is_refused_with_what_made_the_cache_and_what_was_given(cache: Path, given: dict[str, str]):
    with pytest.raises(
        CacheError, match=r"was made with (sound|picture) codec (s1|p1), but codec (none|p2) was given: give"
    ):
        require_codec(cache, given)


def test_the_codec_that_made_the_cache_is_accepted(cache: Path):
    assert require_codec(cache, {"picture": "p1", "sound": "s1"}).pyramids["picture"] == PICTURE


def test_the_views_of_a_window_are_views_of_the_same_frames(cache: Path):
    source, generator = LatentSource(cache, 4, "all"), np.random.default_rng(0)
    starts = set()
    for index in range(len(source)):
        window = source.read(index, generator)
        first = int(window.picture[0, 0, 0])
        starts.add(first % 1000)
        assert first // 1000 == index // 2
        assert window.picture[0, :, 0].tolist() == [first, first + 1, first + 2, first + 3]
        assert window.reversed[0, :, 0].tolist() == [first + 3, first + 2, first + 1, first]
        assert window.fast[0, :, 0].tolist() == [first, first + 2]
        assert window.thumbnails[0, :, 0, 0, 0].tolist() == [(first + frame) % 1000 for frame in range(4)]
        assert (window.sound[0].numpy() == rows_of(INFO, NUM_CLIPS)["sound"][index // 2][first % 1000 :][:4]).all()
    assert starts == {0, 2, 4}


def test_an_odd_window_has_the_fast_view_that_fits(cache: Path):
    window = LatentSource(cache, 5, "all").read(3, np.random.default_rng(1))
    assert window.fast.shape == (1, 2, 5)
    assert window.fast[0, :, 0].tolist() == window.picture[0, [0, 2], 0].tolist()


def test_without_random_starts_windows_cover_the_clip_evenly(cache: Path):
    source = LatentSource(cache, 4, "all", random_start=False)
    first = [int(source.read(index, np.random.default_rng(index)).picture[0, 0, 0]) for index in range(4)]
    assert first == [0, 4, 1000, 1004]


def test_the_splits_share_no_clip_and_together_are_all(cache: Path):
    train, heldout, both = (set(LatentSource(cache, 4, split).clips.tolist()) for split in ("train", "heldout", "all"))
    assert not train & heldout
    assert train | heldout == both == set(range(NUM_CLIPS))
    assert heldout == {1, 5, 9}


def test_the_same_generator_gives_the_same_window(cache: Path):
    source = LatentSource(cache, 4, "all")
    one, two = (source.read(5, np.random.default_rng(3)) for _ in range(2))
    assert all(torch.equal(value, vars(two)[name]) for name, value in vars(one).items())


def test_items_are_stacked_and_moved_as_one(cache: Path):
    source = LatentSource(cache, 4, "all")
    batch = source.collate([source.read(index, np.random.default_rng(index)) for index in range(3)]).to("cpu")
    assert batch.picture.shape == (3, 4, 5)
    assert batch.fast.shape == (3, 2, 5)
    assert batch.sound.shape == (3, 4, 2)
    assert batch.thumbnails.shape == (3, 4, 3, 4, 6)
    assert batch.has_sound.shape == (3,)
    assert batch.picture.dtype == torch.int64


def test_without_a_sound_codec_the_sound_has_no_columns(tmp_path: Path):
    info = dataclasses.replace(INFO, fingerprints={"picture": "p1"}, pyramids={"picture": PICTURE})
    write(tmp_path / "mute.zarr", info)
    source = LatentSource(tmp_path / "mute.zarr", 4)
    assert source.collate([source.read(0, np.random.default_rng(0))]).sound.shape == (1, 4, 0)
    assert "sound" not in by_zarr(tmp_path / "mute.zarr")


def test_a_window_longer_than_the_clips_is_refused(cache: Path):
    with pytest.raises(
        SettingsError, match=r"num_frames 10 does not fit: the clips of .* have 9 frames; ask for 2 to 9"
    ):
        LatentSource(cache, 10)


def test_an_empty_split_is_refused(tmp_path: Path):
    write(tmp_path / "OUT.zarr", num_clips=1)
    with pytest.raises(CacheError, match="has no heldout clips"):
        LatentSource(tmp_path / "OUT.zarr", 4, "heldout")


def test_codes_above_the_range_of_int16_come_back(tmp_path: Path):
    rows = rows_of(INFO, 1)
    rows["picture"][:] = 65535
    with LatentWriter(tmp_path / "OUT.zarr", INFO) as writer:
        writer.append(rows)
        writer.finish([], {})
    batch: CodeBatch = LatentSource(tmp_path / "OUT.zarr", 4, "all").read(0, np.random.default_rng(0))
    assert int(batch.picture.min()) == 65535


def test_a_worker_process_reads_what_this_process_reads(cache: Path):
    source, batches = LatentSource(cache, 4, "all"), []
    for num_workers in (0, 1):
        loader = Loader(source, LoaderSettings(batch_size=4, num_workers=num_workers), seed=1)
        batches.append([next(loader) for _ in range(2)])
        loader.close()
    for here, there in zip(*batches, strict=True):
        assert all(torch.equal(value, vars(there)[name]) for name, value in vars(here).items())
