"""The door to pyarrow: what a scan found in every file, as one table in parquet, and in CSV for people."""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Float64
from pyarrow import csv, parquet
from upath import UPath

from streams.errors import MediaError
from streams.index import FrameIndex

MANIFEST_SUFFIXES = {".parquet", ".csv"}
# Sound whose loudest sample is below this is silent.
SILENT_DB = -50.0


@dataclass(frozen=True, eq=False)
class Entry:
    """What is known of one file.

    Attributes:
        path: the file, absolute, as `streams.addresses.address_of` reads it.
        size_bytes: its length.
        modified_seconds: when it was last changed, since 1970; 0 where nobody tells.
        content_hash: sha256 of its bytes, empty if it could not be read.
        reader: library that gives the right frames; empty if the file cannot be used.
        problems: whatever is odd about it; one at least if it cannot be used.
        container: FFmpeg's names of the container's format, with commas.
        codec: FFmpeg's name of the pictures' codec.
        pixel_format: FFmpeg's name of how pixels are stored.
        width: columns as stored, before rotation.
        height: rows as stored, before rotation.
        rotation: degrees counterclockwise by which pictures are turned to be upright.
        sample_aspect_ratio: width of a pixel over its height.
        nominal_rate: frames per second that the container claims; 0 if it does not.
        true_rate: frames per second by the times of the frames; 0 for one frame.
        variable_rate: whether frames are shown for different times.
        num_frames: frames that really decode, without damage before or in them.
        duration_seconds: from the first of them to the end of the last.
        sound_codec: FFmpeg's name of the sound's codec; empty without sound.
        sample_hz: rate of the sound as stored.
        num_channels: channels of the sound as stored; 0 without sound.
        sound_seconds: length of the sound that really decodes, by its samples.
        sound_offset_seconds: start of the sound minus start of the pictures; positive for late sound.
        sound_drift_seconds: what the sound's times gain on its samples; see `streams.pyav.sync.Sync`.
        sound_peak_db: loudest sample over full scale.
        edit_list: whether the container hides, delays or rearranges parts of its pictures.
        duplicate_of: path of the file with the same bytes that comes first; empty if this is the first.
        split: part of the data, by the content alone; empty without content hash.
        index: times of the frames (parquet only).
        cuts_seconds: times of frames that begin another scene (parquet only).
    """

    path: str
    size_bytes: int = 0
    modified_seconds: float = 0.0
    content_hash: str = ""
    reader: str = ""
    problems: tuple[str, ...] = ()
    container: str = ""
    codec: str = ""
    pixel_format: str = ""
    width: int = 0
    height: int = 0
    rotation: int = 0
    sample_aspect_ratio: float = 1.0
    nominal_rate: float = 0.0
    true_rate: float = 0.0
    variable_rate: bool = False
    num_frames: int = 0
    duration_seconds: float = 0.0
    sound_codec: str = ""
    sample_hz: int = 0
    num_channels: int = 0
    sound_seconds: float = 0.0
    sound_offset_seconds: float = 0.0
    sound_drift_seconds: float = 0.0
    sound_peak_db: float = float("-inf")
    edit_list: bool = False
    duplicate_of: str = ""
    split: Literal["", "train", "validation", "test"] = ""
    index: FrameIndex | None = field(default=None, repr=False)
    cuts_seconds: Float64[np.ndarray, " cut"] = field(default_factory=lambda: np.zeros(0), repr=False)

    @property
    def has_sound(self) -> bool:
        """Whether there is a track of sound that decodes."""
        return self.num_channels > 0

    @property
    def is_silent(self) -> bool:
        """Whether there is nothing to hear."""
        return self.sound_peak_db < SILENT_DB


TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
PLAIN = [each for each in fields(Entry) if each.name not in ("problems", "index", "cuts_seconds")]
TEXT_SCHEMA = pa.schema(
    [*((each.name, TYPES.get(each.type, pa.string())) for each in PLAIN), ("problems", pa.string())]
)
LISTS = {"index_ticks": pa.int64(), "index_keys": pa.int64(), "cuts_seconds": pa.float64()}
SCHEMA = pa.schema(
    [
        *TEXT_SCHEMA,
        *((name, pa.list_(kind)) for name, kind in LISTS.items()),
        ("index_tick_seconds", pa.string()),
        ("index_start_seconds", pa.string()),
        ("index_decoded", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class Manifest:
    """The entries of many files, in the order of their paths.

    In the file, paths beneath the manifest's own folder are written relative to it, so that both can be moved together.
    """

    entries: tuple[Entry, ...]

    @cached_property
    def usable(self) -> list[Entry]:
        """Entries of files that can be read."""
        return [entry for entry in self.entries if entry.reader]

    @cached_property
    def by_path(self) -> dict[str, Entry]:
        """Entries by their path."""
        return {entry.path: entry for entry in self.entries}

    def write(self, path: Path) -> None:
        """Writes parquet, and CSV beside it, each complete under its name or not at all."""
        path = path.with_suffix(".parquet")
        table = _table_of(self.entries, path.absolute().parent)
        _write_whole(path, lambda partial: parquet.write_table(table, partial))
        text = table.select(TEXT_SCHEMA.names)
        _write_whole(path.with_suffix(".csv"), lambda partial: csv.write_csv(text, partial))

    @classmethod
    def read(cls, path: Path | UPath) -> "Manifest":
        """Reads either file; from CSV the entries have no index and no cuts.

        Raises:
            MediaError: the file is damaged, or no manifest.
            OSError: it cannot be read.
        """
        is_table = path.suffix.lower() == ".parquet"
        schema = SCHEMA if is_table else TEXT_SCHEMA
        content = pa.BufferReader(path.read_bytes())
        try:
            table = parquet.read_table(content) if is_table else _read_csv(content)
            missing = [name for name in schema.names if name not in table.column_names]
            if missing:
                raise MediaError(
                    f"{path}: is no manifest of videos (without the columns {', '.join(missing)}); "
                    "write one with python -m tools.videos scan"
                )
            table = table.select(schema.names).cast(schema).combine_chunks()
            return cls(tuple(_entries_of(table, path)))
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise MediaError(f"{path}: is damaged or no manifest ({reason}); scan the videos again") from error


def _write_whole(path: Path, write: Callable[[Path], None]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    write(partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def _read_csv(content: pa.BufferReader) -> pa.Table:
    return csv.read_csv(
        content,
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(column_types=TEXT_SCHEMA),
    )


def _table_of(entries: Iterable[Entry], folder: Path) -> pa.Table:
    rows = []
    for entry in entries:
        row = {each.name: getattr(entry, each.name) for each in PLAIN}
        row |= {name: _relative(row[name], folder) for name in ("path", "duplicate_of")}
        problems = json.dumps(entry.problems, ensure_ascii=False) if entry.problems else ""
        # A name that is not UTF-8 becomes what JSON writes for it anyway.
        row |= {"problems": problems.encode("utf-8", "backslashreplace").decode()}
        row |= {"cuts_seconds": entry.cuts_seconds}
        if entry.index is not None:
            row |= {"index_ticks": entry.index.ticks, "index_keys": entry.index.keys}
            row |= {"index_tick_seconds": str(entry.index.tick_seconds)}
            row |= {"index_start_seconds": str(entry.index.start_seconds), "index_decoded": entry.index.decoded}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _entries_of(table: pa.Table, path: Path | UPath) -> Iterable[Entry]:
    folder = path.absolute().parent
    lists = {name: _arrays(table[name]) for name in LISTS if name in table.column_names}
    for number, row in enumerate(table.drop_columns(list(lists)).to_pylist()):
        plain = {each.name: row[each.name] for each in PLAIN}
        if None in plain.values():
            raise ValueError(f"row {number + 1} has empty cells")
        plain |= {name: _absolute(row[name], folder) for name in ("path", "duplicate_of")}
        problems = tuple(map(str, json.loads(row["problems"]))) if row["problems"] else ()
        found = {name: arrays[number] for name, arrays in lists.items()}
        if not found:
            yield Entry(**plain, problems=problems)
            continue
        index = None
        if row["index_tick_seconds"]:
            index = FrameIndex(
                ticks=found["index_ticks"],
                keys=found["index_keys"],
                tick_seconds=Fraction(row["index_tick_seconds"]),
                start_seconds=Fraction(row["index_start_seconds"]),
                container=row["container"],
                codec=row["codec"],
                decoded=row["index_decoded"],
            )
        yield Entry(**plain, problems=problems, index=index, cuts_seconds=found["cuts_seconds"])


def _arrays(column: pa.ChunkedArray) -> list[np.ndarray]:
    """Lists of numbers without a Python object for each number."""
    if column.num_chunks == 0:
        return []
    chunk = column.chunk(0)
    offsets, values = chunk.offsets.to_numpy(), chunk.values.to_numpy(zero_copy_only=False)
    return [values[start:stop] for start, stop in pairwise(offsets.tolist())]


def _relative(text: str, folder: Path) -> str:
    return text.removeprefix(f"{folder}/")


def _absolute(text: str, folder: Path | UPath) -> str:
    return text if not text or text.startswith("/") or "://" in text else str(folder / text)
