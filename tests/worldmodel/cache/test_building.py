import dataclasses
import errno
from pathlib import Path

import numpy as np
import pytest

from tests.worldmodel.cache.small_cache import INFO, rows_of
from worldmodel.cache import building
from worldmodel.cache.building import Plan, Unit, Work, parse_part
from worldmodel.cache.latents import LatentCache
from worldmodel.errors import CacheError, SettingsError

PLAN = Plan(INFO, num_clips=7, unit_clips=2)


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """Begun; units 0 and 2 are finished."""
    begun = Work(tmp_path / "OUT.zarr")
    with begun.planning():
        begun.begin(PLAN)
    for number in (0, 2):
        begun.save(number, unit_of(number))
    return begun


def unit_of(number: int) -> Unit:
    """The first of its two clips; the other could not be read."""
    rows = {name: block[number : number + 1] for name, block in rows_of(INFO, 7).items()}
    rows["picture"] = np.zeros_like(rows["picture"])
    rows["sound"] = np.zeros_like(rows["sound"])
    return Unit(rows, [(f"{number}.mp4", "a hole")], (10, number))


def test_parts_share_all_units_without_overlap():
    for num_parts in (1, 2, 3, 4, 9):
        shares = [list(PLAN.units_of((number, num_parts))) for number in range(1, num_parts + 1)]
        assert [unit for share in shares for unit in share] == [0, 1, 2, 3]
    assert [list(PLAN.clips_of(unit)) for unit in range(4)] == [[0, 1], [2, 3], [4, 5], [6]]
    with pytest.raises(SettingsError, match="part 4/3: give 1/3 to 3/3"):
        PLAN.units_of((4, 3))


def test_a_part_is_written_as_a_number_of_a_number():
    assert parse_part("3/16") == (3, 16)
    for wrong in ("3", "0/4", "5/4", "a/b", "1/", "-1/2"):
        with pytest.raises(SettingsError, match="is not one: give a number"):
            parse_part(wrong)


def test_a_unit_comes_back_as_it_was(work: Work):
    unit = work.load(2)
    assert unit.skipped == unit_of(2).skipped
    assert unit.still == (10, 2)
    assert all((unit.rows[name] == block).all() for name, block in unit_of(2).rows.items())
    work.save(3, Unit(skipped=[("a", "b")]))
    assert work.load(3).rows == {}


def test_units_make_a_cache_when_all_are_there(work: Work):
    with pytest.raises(CacheError, match="2 of 4 units are missing, first 1: run"):
        work.put_together()
    assert work.progress() == "2 of 4 units of all parts are"
    for number in (3, 1):
        work.save(number, unit_of(number))
    info = work.put_together()
    cache = LatentCache(work.path)
    assert info == cache.info
    assert info.skipped == [(f"{number}.mp4", "a hole") for number in range(4)]
    assert info.statistics["still"] == {"num_still": 40, "num_changed": 6, "changed": 0.15}
    wanted = rows_of(INFO, 7)["seconds"][:4]
    assert (cache.rows["seconds"].to_array() == wanted).all()
    assert not work.folder.exists()
    assert work.put_together() == info  # as another part would that finished at the same moment
    assert not work.folder.exists()


def test_without_a_begun_build_there_is_nothing_to_put_together(tmp_path: Path):
    with pytest.raises(CacheError, match="no build of .*OUT.zarr was begun"):
        Work(tmp_path / "OUT.zarr").put_together()
    assert not list(tmp_path.iterdir())


def test_a_damaged_unit_is_named(work: Work):
    file = work.folder / "units" / "00000002.npz"
    content = bytearray(file.read_bytes())
    for place in (len(content) // 3, len(content) // 2):
        damaged = content.copy()
        damaged[place] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(CacheError, match="00000002.npz is damaged .*: delete it and run the same build again"):
            work.load(2)
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(CacheError, match="00000002.npz is damaged"):
        work.load(2)


def test_a_damaged_plan_is_named(work: Work):
    (work.folder / "plan.json").write_text('{"info"')
    with pytest.raises(CacheError, match="plan.json is damaged .*: delete .*OUT.zarr.building and begin again"):
        work.read_plan()


def test_a_full_disk_loses_nothing_that_was_finished(work: Work, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(building, "sync", full)
        with pytest.raises(CacheError, match="00000001.npz cannot be written .No space left on device.*same command"):
            work.save(1, unit_of(1))
    assert work.done() == {0, 2}
    assert not list(work.folder.rglob("*.partial"))
    work.save(1, unit_of(1))
    assert work.done() == {0, 1, 2}


def test_two_builders_of_one_part_or_of_overlapping_parts_are_refused(work: Work):
    with work.holding(PLAN, (1, 2)) as units:
        assert list(units) == [0, 1]
        twice = pytest.raises(CacheError, match=r"part 1/2 of .* is being written already by host .*, process")
        with twice, work.holding(PLAN, (1, 2)):
            pass
        for part in ((1, 1), (2, 4)):
            overlapping = pytest.raises(CacheError, match="part-1-of-2 overlaps it and is being written by host")
            with overlapping, work.holding(PLAN, part):
                pass
        with work.holding(PLAN, (2, 2)):
            pass
        changed = dataclasses.replace(INFO, num_frames=5)
        with pytest.raises(CacheError, match="is being written by host .*: stop it before --overwrite"):
            work.begin(Plan(changed, 7, 2, overwrite=True))
    with work.holding(PLAN, (1, 1)):
        pass
