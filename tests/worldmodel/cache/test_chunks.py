import gc
import pickle
from pathlib import Path

import numpy as np
import pytest

from worldmodel.cache.chunks import MappedRows
from worldmodel.errors import CacheError

ROWS = np.arange(7 * 2 * 3, dtype="<u2").reshape(7, 2, 3)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """ROWS in chunk files of three rows; the last holds one row and two of padding."""
    padded = np.concatenate([ROWS, np.zeros((2, 2, 3), ROWS.dtype)])
    found = []
    for chunk in range(3):
        found.append(tmp_path / str(chunk))
        found[-1].write_bytes(padded[3 * chunk : 3 * chunk + 3].tobytes())
    return found


def opened(files: list[Path]) -> MappedRows:
    return MappedRows(files, 7, 3, (2, 3), ROWS.dtype)


def test_every_row_is_what_lies_in_the_files(files: list[Path]):
    rows = opened(files)
    assert len(rows) == 7
    assert all((rows[row] == ROWS[row]).all() for row in (6, 0, 3, 1, 5, 2, 4))
    assert (rows.to_array() == ROWS).all()


def test_a_row_beyond_the_end_is_no_padding(files: list[Path]):
    for row in (7, -1):
        with pytest.raises(IndexError, match=f"row {row} of 7"):
            opened(files)[row]


def test_parts_of_rows_are_gathered_wherever_they_lie(files: list[Path]):
    rows = opened(files)
    for chosen in ([4], [6, 0, 3, 3]):
        cuts = [slice(row % 2, row % 2 + 1) for row in chosen]
        expected = np.stack([ROWS[row][cut] for row, cut in zip(chosen, cuts, strict=True)])
        assert (rows.gather(chosen, cuts) == expected).all()


def test_a_chunk_that_is_replaced_while_the_cache_is_read_is_refused(files: list[Path]):
    rows = opened(files)
    assert (rows[0] == ROWS[0]).all()
    travelled = pickle.loads(pickle.dumps(rows))  # as to a loader's worker
    for file in files[:2]:
        other = file.with_name("other")
        other.write_bytes(bytes(file.stat().st_size))
        other.replace(file)
    assert (rows[1] == ROWS[1]).all()  # mapped before, and what it was
    for each, row in ((rows, 3), (travelled, 0), (travelled, 3)):
        with pytest.raises(CacheError, match="was replaced while the cache was read: start"):
            each[row]
    assert (travelled[6] == ROWS[6]).all()


def test_maps_keep_no_file_open_and_go_when_nobody_looks_at_them(files: list[Path]):
    def mapped() -> int:
        return sum(str(files[0].parent) in line for line in Path("/proc/self/maps").read_text().splitlines())

    num_open, rows = len(list(Path("/proc/self/fd").iterdir())), opened(files)
    kept = [rows[0], rows[3], rows[6]][0]
    assert len(list(Path("/proc/self/fd").iterdir())) == num_open
    assert mapped() == 3
    del rows
    gc.collect()
    assert mapped() == 1
    assert (kept == ROWS[0]).all()
    del kept
    gc.collect()
    assert mapped() == 0


def test_rows_cannot_be_written(files: list[Path]):
    with pytest.raises(ValueError, match="read-only"):
        opened(files)[0][0, 0] = 1


def test_a_pickled_array_carries_no_data_and_reads_the_same(files: list[Path]):
    rows = opened(files)
    unread = len(pickle.dumps(rows))
    assert (rows[4] == ROWS[4]).all()
    assert len(pickle.dumps(rows)) == unread
    assert (pickle.loads(pickle.dumps(rows))[4] == ROWS[4]).all()


def test_few_files_are_mapped_at_a_time(files: list[Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("worldmodel.cache.chunks._MAX_MAPS", 1)
    rows = opened(files)
    kept = rows[0]
    assert all((rows[row] == ROWS[row]).all() for row in (6, 0, 3, 6))
    assert len(rows._maps) == 1
    assert (kept == ROWS[0]).all()  # a row outlives the map it came from


def test_a_missing_chunk_is_an_error_that_names_it(files: list[Path]):
    files[1].unlink()
    with pytest.raises(CacheError, match=rf"chunk {files[1]} of the latent cache is missing"):
        opened(files)


def test_a_short_chunk_is_an_error_that_names_it(files: list[Path]):
    files[2].write_bytes(files[2].read_bytes()[:-1])
    with pytest.raises(CacheError, match=rf"chunk {files[2]} .* has 35 bytes, expected 36"):
        opened(files)


def test_a_chunk_cut_after_opening_is_an_error_too(files: list[Path]):
    rows = opened(files)
    files[0].write_bytes(b"")
    with pytest.raises(CacheError, match="has 0 bytes, expected 36"):
        rows[0]
