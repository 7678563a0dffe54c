from pathlib import Path

import pytest

from tests.worldmodel.cache.small_cache import INFO, NUM_CLIPS, rows_of, write
from worldmodel.cache.checking import check_files
from worldmodel.cache.copying import copy_cache
from worldmodel.cache.latents import LatentCache
from worldmodel.errors import CacheError


def test_a_copy_in_another_profile_holds_the_same(tmp_path: Path):
    write(tmp_path / "OUT.zarr")
    cache = LatentCache(tmp_path / "OUT.zarr")
    assert copy_cache(cache, tmp_path / "small.zarr", "archive") == cache.info
    packed = LatentCache(tmp_path / "small.zarr")
    copy_cache(packed, tmp_path / "back.zarr", "mapped")
    back = LatentCache(tmp_path / "back.zarr")
    assert (cache.profile, packed.profile, back.profile) == ("mapped", "archive", "mapped")
    for name, rows in rows_of(INFO, NUM_CLIPS).items():
        assert (packed.rows[name].to_array() == rows).all()
        assert (back.rows[name].to_array() == rows).all()
    check_files(packed.path)
    with pytest.raises(CacheError, match="exists already"):
        copy_cache(cache, tmp_path / "small.zarr", "archive")
