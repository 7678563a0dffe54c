import dataclasses
import errno
import json
from pathlib import Path

import numpy as np
import pytest

from tests.worldmodel.cache.small_cache import INFO, NUM_CLIPS, rows_of, write
from worldmodel.cache import store, writer
from worldmodel.cache.latents import LatentCache
from worldmodel.cache.writer import LatentWriter
from worldmodel.errors import CacheError, SettingsError
from worldmodel.layout import Pyramid, Scale


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of several chunks, the last of every array only partly filled."""
    monkeypatch.setattr(store, "CHUNK_BYTES", 2000)
    write(tmp_path / "OUT.zarr", expected_clips=4)
    return tmp_path / "OUT.zarr"


def test_no_temporary_folder_is_left(cache: Path):
    assert [path.name for path in cache.parent.iterdir()] == ["OUT.zarr"]


def test_a_writer_that_is_stopped_leaves_nothing(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt), LatentWriter(tmp_path / "OUT.zarr", INFO) as writer:
        writer.append(rows_of(INFO, 3))
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_cache_is_replaced_only_when_asked_and_only_by_a_finished_one(cache: Path):
    with pytest.raises(CacheError, match="exists already: give another name, or --overwrite"):
        LatentWriter(cache, INFO)
    with (
        pytest.raises(CacheError, match="no clip could be encoded"),
        LatentWriter(cache, INFO, overwrite=True) as writer,
    ):
        writer.finish([], {})
    assert LatentCache(cache).num_clips == NUM_CLIPS
    write(cache, num_clips=5, overwrite=True)
    assert LatentCache(cache).num_clips == 5
    assert [path.name for path in cache.parent.iterdir()] == ["OUT.zarr"]


def test_rows_that_do_not_fit_are_refused(tmp_path: Path):
    rows = rows_of(INFO, 2)
    with LatentWriter(tmp_path / "OUT.zarr", INFO) as writer:
        with pytest.raises(ValueError, match="expected the same number of"):
            writer.append({name: block for name, block in rows.items() if name != "sound"})
        with pytest.raises(ValueError, match="expected the same number of"):
            writer.append(rows | {"video": rows["video"][:1]})
        with pytest.raises(ValueError, match=r"rows of picture have shape \(9, 4\), expected \(9, 5\)"):
            writer.append(rows | {"picture": rows["picture"][..., 1:]})


def test_a_vocabulary_that_does_not_fit_two_bytes_is_refused(tmp_path: Path):
    info = dataclasses.replace(INFO, pyramids={"picture": Pyramid((Scale(1, 1, 65537),))})
    with pytest.raises(SettingsError, match="picture codec has a vocabulary above 65536"):
        LatentWriter(tmp_path / "OUT.zarr", info)


def test_a_chunk_of_zeros_is_a_file_like_any_other(tmp_path: Path):
    rows = {name: np.zeros_like(block) for name, block in rows_of(INFO, 3).items()}
    with LatentWriter(tmp_path / "zeros.zarr", INFO) as writer:
        writer.append(rows)
        writer.finish([], {})
    assert LatentCache(tmp_path / "zeros.zarr").num_clips == 3


def test_what_a_killed_writer_left_is_replaced(tmp_path: Path):
    for name in ("OUT.zarr.partial", "OUT.zarr.old.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "junk").write_bytes(b"junk")
    write(tmp_path / "OUT.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["OUT.zarr"]
    assert not (tmp_path / "OUT.zarr" / "junk").exists()


def test_a_full_disk_is_one_line_and_leaves_the_old_cache(cache: Path, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer, "sync", full)
    with pytest.raises(CacheError, match="cannot be written .No space left on device.: what is finished is kept"):
        write(cache, overwrite=True)
    assert [path.name for path in cache.parent.iterdir()] == ["OUT.zarr"]
    assert LatentCache(cache).num_clips == NUM_CLIPS


def test_the_same_rows_give_the_same_bytes(tmp_path: Path):
    for name in ("one.zarr", "two.zarr"):
        write(tmp_path / name)
    files = [
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "one.zarr", tmp_path / "two.zarr")
    ]
    assert files[0] == files[1]


def test_a_changed_attribute_is_noticed(cache: Path):
    content = json.loads((cache / "zarr.json").read_text())
    content["attributes"]["frames_per_second"] = 11.0
    (cache / "zarr.json").write_text(json.dumps(content))
    with pytest.raises(CacheError, match="zarr.json is damaged .its digest is another"):
        LatentCache(cache)
