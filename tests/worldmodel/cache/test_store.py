import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from upath import UPath

from tests.streams.web import serving
from tests.worldmodel.cache.small_cache import INFO, NUM_CLIPS, rows_of, write
from worldmodel.cache import store
from worldmodel.cache.checking import check_files
from worldmodel.cache.latents import LatentCache, LatentSource
from worldmodel.cache.store import BlockRows, open_array, read_attributes
from worldmodel.errors import CacheError


@pytest.fixture(params=["mapped", "archive"])
def cache(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of several files."""
    monkeypatch.setattr(store, "CHUNK_BYTES", 2000)
    monkeypatch.setattr(store, "ARCHIVE_CHUNK_BYTES", 700)
    write(tmp_path / "OUT.zarr", expected_clips=6, profile=request.param)
    return tmp_path / "OUT.zarr"


@pytest.fixture
def memory(cache: Path) -> Iterator[str]:
    """The same cache in fsspec's memory."""
    root = UPath("memory://caches/OUT.zarr")
    for file in cache.rglob("*"):
        if file.is_file():
            copy = root / file.relative_to(cache).as_posix()
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    yield str(root)
    root.fs.rm("/", recursive=True)


def assert_complete(path: str | Path) -> None:
    opened = LatentCache(path)
    assert opened.num_clips == NUM_CLIPS
    for name, rows in rows_of(INFO, NUM_CLIPS).items():
        assert (opened.rows[name].to_array() == rows).all()
        assert (np.stack([opened.rows[name][row] for row in range(NUM_CLIPS)]) == rows).all()
        with pytest.raises(IndexError, match="row 11 of 11"):
            opened.rows[name][NUM_CLIPS]
    check_files(path)


def test_both_profiles_are_read_by_zarr_and_by_the_cache(cache: Path):
    assert_complete(cache)
    for name, rows in rows_of(INFO, NUM_CLIPS).items():
        assert (np.asarray(zarr.open_array(cache / name, mode="r")[:]) == rows).all()


def test_a_cache_is_read_from_memory_and_from_the_web(cache: Path, memory: str):
    assert_complete(memory)
    assert LatentCache(memory).num_bytes == LatentCache(cache).num_bytes
    with serving(cache.parent, in_parts=True) as address:
        assert_complete(f"{address}/OUT.zarr")


def test_training_reads_the_same_from_everywhere(cache: Path, memory: str):
    here, there = LatentSource(cache, 4, "all"), LatentSource(memory, 4, "all")
    there = pickle.loads(pickle.dumps(there))
    for index in range(0, len(here), 3):
        one, two = (source.read(index, np.random.default_rng(1)) for source in (here, there))
        assert all(torch.equal(value, vars(two)[name]) for name, value in vars(one).items())


def test_blocks_are_read_once_and_few_are_kept(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store, "KEPT_BYTES", 0)
    array = open_array(cache, "thumbnails")
    rows, numbers = BlockRows(array, cache, "thumbnails"), []

    read = zarr.Array.__getitem__

    def counting(self: zarr.Array, cut: slice) -> object:
        numbers.append(cut.start // array.chunks[0])
        return read(self, cut)

    monkeypatch.setattr(zarr.Array, "__getitem__", counting)
    for row in (0, 0, 1, 0, NUM_CLIPS - 1, 0):
        assert (rows[row] == rows_of(INFO, NUM_CLIPS)["thumbnails"][row]).all()
    assert len(numbers) == len(set(numbers))
    assert len(rows._blocks) <= 2


def test_what_is_missing_of_an_archive_or_a_server_is_an_error_and_not_zeros(cache: Path, memory: str):
    for path in (cache, memory):
        root = UPath(path)
        (root / "thumbnails" / "c" / "0" / "0" / "0" / "0" / "0").unlink()
        with pytest.raises(CacheError, match=r"thumbnails/c/0/0/0/0/0 .*is missing"):
            LatentCache(path).rows["thumbnails"][0]
        with pytest.raises(CacheError, match="1 files are not as they were written: thumbnails/c/0/0/0/0/0 "):
            check_files(path)


def test_a_damaged_archive_is_an_error_when_it_is_read(tmp_path: Path):
    write(tmp_path / "OUT.zarr", profile="archive")
    file = tmp_path / "OUT.zarr" / "picture" / "c" / "0" / "0" / "0"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(CacheError, match="rows 0 and on of .*picture are damaged"):
        LatentCache(tmp_path / "OUT.zarr").rows["picture"][0]
    with pytest.raises(CacheError, match="picture/c/0/0/0 .damaged."):
        check_files(tmp_path / "OUT.zarr")


def test_an_archive_is_smaller_and_has_fewer_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store, "CHUNK_BYTES", 2**14)
    sizes = {}
    for profile in ("mapped", "archive"):
        write(tmp_path / profile, num_clips=400, profile=profile)
        sizes[profile] = LatentCache(tmp_path / profile).num_bytes
        assert LatentCache(tmp_path / profile).profile == profile
    assert sizes["archive"] < sizes["mapped"]
    assert len(list((tmp_path / "archive").rglob("*"))) <= len(list((tmp_path / "mapped").rglob("*")))


@pytest.mark.parametrize("content", ["{", "[]", '{"zarr_format": 2, "node_type": "group"}', '"text"', "null"])
def test_a_description_that_is_none_is_an_error_that_names_it(tmp_path: Path, content: str):
    (tmp_path / "zarr.json").write_text(content)
    with pytest.raises(CacheError, match="zarr.json is damaged .*: build the cache again"):
        read_attributes(tmp_path)


def test_a_damaged_description_of_an_array_is_named(cache: Path):
    file = cache / "picture" / "zarr.json"
    described = json.loads(file.read_text())
    for change in ({"shape": "x"}, {"data_type": "uint99"}, {"codecs": [{"name": "unheard_of"}]}, {"zarr_format": 9}):
        file.write_text(json.dumps(described | change))
        with pytest.raises(CacheError, match="picture"):
            LatentCache(cache)
    file.write_text("{")
    with pytest.raises(CacheError, match="picture/zarr.json is damaged"):
        LatentCache(cache)


def test_an_address_without_a_cache_is_told_apart_from_a_server_that_fails(tmp_path: Path):
    with serving(tmp_path) as address, pytest.raises(CacheError, match="there is no latent cache at http"):
        LatentCache(f"{address}/OUT.zarr")
    with pytest.raises(CacheError, match="cannot be read"):
        LatentCache(f"{address}/OUT.zarr")
