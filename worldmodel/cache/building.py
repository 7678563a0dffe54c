"""A cache in the making: what is to be encoded, unit by unit, what of it is done, and putting it together.

A unit is a run of consecutive clips that are encoded together; it is a file in OUT.zarr.building, written whole or not
at all. Units do not depend on who encodes them, when, or beside which others, so a build that was interrupted, or done
in parts by many processes, gives byte for byte the cache of one that was not.
"""

import dataclasses
import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.cache.code_statistics import CodeStatistics, StillStatistics
from worldmodel.cache.info import CacheInfo
from worldmodel.cache.latents import LatentCache
from worldmodel.cache.locks import holder_of, is_held, locked
from worldmodel.cache.store import Profile
from worldmodel.cache.writer import LatentWriter, require_two_bytes, sync, work_folder, write_errors
from worldmodel.errors import CacheError, SettingsError

NOTE = "note"  # what a unit's file holds beside its rows


@dataclass(frozen=True)
class Unit:
    """What became of consecutive clips.

    Attributes:
        rows: of those that could be read, by array; empty if none could.
        skipped: (name, reason) of the others.
        still: codes of the finest scale whose patch stands still, and how many of them changed all the same.
    """

    rows: dict[str, np.ndarray] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    still: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Plan:
    """What a build is to do.

    Attributes:
        info: of the cache, before the first clip.
        num_clips: clips to be read.
        unit_clips: clips of one unit.
        overwrite: a finished cache in the same place is to be replaced.
        statuses: of the videos' files when their content was hashed (`streams.video.status_of`), by name.
    """

    info: CacheInfo
    num_clips: int
    unit_clips: int
    overwrite: bool = False
    statuses: dict[str, list[int]] = field(default_factory=dict)

    @property
    def num_units(self) -> int:
        """Units of all clips; the last may be smaller."""
        return -(-self.num_clips // self.unit_clips)

    def units_of(self, part: tuple[int, int]) -> range:
        """Units of part (i, N), counted from 1, of N.

        Raises:
            SettingsError: there is no such part.
        """
        number, num_parts = part
        if not 1 <= number <= num_parts:
            raise SettingsError(f"part {number}/{num_parts}: give 1/{num_parts} to {num_parts}/{num_parts}")
        return range(self.num_units * (number - 1) // num_parts, self.num_units * number // num_parts)

    def clips_of(self, unit: int) -> range:
        """Clips of a unit, among those to be read."""
        return range(unit * self.unit_clips, min((unit + 1) * self.unit_clips, self.num_clips))


class Work:
    """The folder of a cache in the making, shared by all processes that build it.

    Attributes:
        path: the cache, OUT.zarr.
        folder: OUT.zarr.building; it is gone when the cache is complete.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, work_folder(path)

    def read_plan(self) -> Plan | None:
        """What the build was begun with; None where none was begun.

        Raises:
            CacheError: the file is damaged.
        """
        file = self.folder / "plan.json"
        try:
            plain = json.loads(file.read_text(encoding="utf-8"))
            return Plan(**plain | {"info": CacheInfo.from_attributes(plain["info"])})
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise CacheError(f"{file} is damaged ({error}): delete {self.folder} and begin again") from error

    def begin(self, plan: Plan) -> Plan:
        """Joins the build that was begun in this place, or begins it; call it with `planning` held.

        Raises:
            CacheError: it was begun with something else; says with what.
            SettingsError: the codes do not fit into a cache.
        """
        require_two_bytes(plan.info)
        begun = self.read_plan()
        if begun is not None:
            difference = begun.info.difference(plan.info)
            if difference is None:
                return begun
            if not plan.overwrite:
                raise CacheError(
                    f"{self.path} was begun otherwise: {difference}; go on with the settings and videos it was begun "
                    f"with, give another name, or --overwrite to drop the {len(self.done())} units that are done"
                )
            self._drop_units()
        plain = {entry.name: getattr(plan, entry.name) for entry in dataclasses.fields(plan)}
        text = json.dumps(plain | {"info": plan.info.to_attributes()})
        _write_whole(self.folder / "plan.json", text.encode())
        return plan

    @contextmanager
    def planning(self) -> Iterator[None]:
        """Held while the videos are described, which the others wait for."""
        with locked(self.folder / "plan.lock", f"the plan of {self.path}", wait=True):
            yield

    @contextmanager
    def holding(self, plan: Plan, part: tuple[int, int]) -> Iterator[range]:
        """The units of a part, which no other process may encode meanwhile.

        Raises:
            CacheError: one does; says which host and process.
        """
        units, what = plan.units_of(part), f"part {part[0]}/{part[1]} of {self.path}"
        file = self.folder / "part-{}-of-{}.lock".format(*part)
        with locked(file, what):
            for other in sorted(self.folder.glob("part-*.lock")):
                _, their_number, _, their_total = other.stem.split("-")
                theirs = plan.units_of((int(their_number), int(their_total)))
                if other != file and max(theirs.start, units.start) < min(theirs.stop, units.stop) and is_held(other):
                    raise CacheError(f"{what}: {other.stem} overlaps it and is being written by {holder_of(other)}")
            yield units

    def done(self) -> set[int]:
        """Units that are finished."""
        return {int(file.stem) for file in (self.folder / "units").glob("*.npz")}

    def progress(self) -> str:
        """How much is finished, in words."""
        plan = self.read_plan()
        return "all are" if plan is None else f"{len(self.done())} of {plan.num_units} units of all parts are"

    def save(self, number: int, unit: Unit) -> None:
        """Keeps a finished unit; its file is there whole or not at all.

        Raises:
            CacheError: the disk is full, or cannot be written.
        """
        note = json.dumps({"skipped": unit.skipped, "still": unit.still}).encode()
        packed = io.BytesIO()
        np.savez(packed, **{NOTE: np.frombuffer(note, np.uint8)}, **unit.rows)  # type: ignore[arg-type]
        _write_whole(self._file(number), packed.getvalue())

    def load(self, number: int) -> Unit:
        """A finished unit; its content is checked by the checksums that zip keeps.

        Raises:
            CacheError: it is damaged.
        """
        file = self._file(number)
        try:
            with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as packed:
                rows = {name: packed[name] for name in packed.files}
            note = json.loads(rows.pop(NOTE).tobytes())
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise CacheError(
                f"{file} is damaged ({error}): delete it and run the same build again, which encodes its clips anew"
            ) from error
        return Unit(rows, [(name, reason) for name, reason in note["skipped"]], tuple(note["still"]))

    def put_together(self, profile: Profile = "mapped") -> CacheInfo:
        """Makes the cache of all units, and deletes them; a cache that another process has just made is left as it is.

        Raises:
            CacheError: nothing was begun, units are missing or damaged, no clip could be read, or the disk is full.
        """
        with locked(self.folder / "merge.lock", str(self.path), wait=True):
            plan = self.read_plan()
            if plan is None:
                self.remove()
                if not self.path.exists():
                    raise CacheError(f"no build of {self.path} was begun: run `python -m tools.latents build`")
                return LatentCache(self.path).info
            self._require_all(plan)
            info = self._write_cache(plan, profile)
            self.remove()
        return info

    def remove(self) -> None:
        """Deletes the folder; its plan goes first, so that nobody goes on with what is left if this is stopped."""
        (self.folder / "plan.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder)

    def _write_cache(self, plan: Plan, profile: Profile) -> CacheInfo:
        info, skipped = plan.info, list(plan.info.skipped)
        counts = {kind: CodeStatistics(pyramid) for kind, pyramid in info.pyramids.items()}
        still = StillStatistics(info.pyramids["picture"])
        with LatentWriter(self.path, info, plan.overwrite, plan.num_clips, profile) as writer:
            for number in range(plan.num_units):
                unit = self.load(number)
                skipped += unit.skipped
                still.num_still += unit.still[0]
                still.num_changed += unit.still[1]
                if unit.rows:
                    writer.append(unit.rows)
                    for kind, count in counts.items():
                        count.add(unit.rows[kind])
            if writer.num_clips == 0:
                self.remove()  # else the next try would not read the videos again
                return writer.finish(skipped, {})
            measured: dict[str, Any] = {kind: count.summary() for kind, count in counts.items()}
            return writer.finish(skipped, measured | {"still": still.summary()})

    def _require_all(self, plan: Plan) -> None:
        missing = sorted(set(range(plan.num_units)) - self.done())
        if missing:
            raise CacheError(
                f"{self.path}: {len(missing)} of {plan.num_units} units are missing, first {missing[0]}: run the same "
                "`python -m tools.latents build` again for the parts that did not finish"
            )

    def _drop_units(self) -> None:
        for other in sorted(self.folder.glob("part-*.lock")):
            if is_held(other):
                raise CacheError(f"{self.path} is being written by {holder_of(other)}: stop it before --overwrite")
        if (self.folder / "units").exists():
            shutil.rmtree(self.folder / "units")

    def _file(self, number: int) -> Path:
        return self.folder / "units" / f"{number:08d}.npz"


def _write_whole(file: Path, content: bytes) -> None:
    """A file that is there whole, and on the disk, or not at all."""
    partial = file.with_name(f"{file.name}.partial")
    with write_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(content)
            sync(partial)
            partial.replace(file)
            sync(file.parent)
        except OSError:
            partial.unlink(missing_ok=True)
            raise


def parse_part(text: str) -> tuple[int, int]:
    """`3/16` as (3, 16).

    Raises:
        SettingsError: it is something else.
    """
    number, divider, total = text.partition("/")
    if not (divider and number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total)):
        raise SettingsError(f"part {text!r} is not one: give a number and how many there are, from 1/N to N/N")
    return int(number), int(total)
