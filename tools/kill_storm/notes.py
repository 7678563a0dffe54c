"""What the processes of a training noted, and whether it is what an undisturbed one notes."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Notes:
    """The notes of all starts so far; `more` reads those that have come since."""

    def __init__(self, path: Path) -> None:
        """Nothing is read yet."""
        self.path, self.offset = path, 0
        self.lines: list[dict[str, Any]] = []

    def more(self) -> list[dict[str, Any]]:
        """The new notes."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self.offset)
            found = file.read().splitlines(keepends=True)
        whole = [line for line in found if line.endswith(b"\n")]
        self.offset += sum(map(len, whole))
        new = [json.loads(line) for line in whole]
        self.lines += new
        return new

    def of(self, what: str, since: float = 0.0) -> Iterator[dict[str, Any]]:
        """Notes of one kind that were written after a time."""
        return (line for line in self.lines if line["what"] == what and line["at"] > since)

    @property
    def last_step(self) -> int:
        """The furthest step that any process has begun."""
        return max((line["step"] for line in self.of("batch")), default=0)


@dataclass(frozen=True)
class Read:
    """What one process did in one step: the samples, a checksum of their codes, its loss and that of all."""

    first: int
    stop: int
    crc: int
    own: str
    loss: str


def reads_of(notes: Notes) -> dict[tuple[int, int], list[tuple[int, Read]]]:
    """By (rank, step): every time it was done, with the number of the start, in order."""
    found: dict[tuple[int, int], list[tuple[int, Read]]] = {}
    for line in notes.of("batch"):
        read = Read(line["first"], line["stop"], line["crc"], line["own"], line["loss"])
        found.setdefault((line["rank"], line["step"]), []).append((line["start"], read))
    return found


def differences(storm: Notes, calm: Notes, num_ranks: int) -> list[str]:
    """In what the notes of a storm differ from those of an undisturbed run; empty where it left no trace.

    Also what was done again after a kill must be what was done the first time.
    """
    here, there = reads_of(storm), reads_of(calm)
    found = [
        f"rank {rank}, step {step}, start {start}: {read} instead of {there[rank, step][0][1]}"
        for (rank, step), reads in sorted(here.items())
        for start, read in reads
        if (rank, step) in there and read != there[rank, step][0][1]
    ]
    found += [
        f"rank {rank}, step {step} was done by one run alone" for rank, step in sorted(here.keys() ^ there.keys())
    ]
    return found + gaps(storm, num_ranks)


def gaps(notes: Notes, num_ranks: int) -> list[str]:
    """Where the positions of the run as it counts (every step as it was done last) do not follow each other.

    Within a start steps follow each other, and every start goes on from a step that was saved before it.
    """
    found, position = [], 0
    reads = reads_of(notes)
    for step in range(1, notes.last_step + 1):
        for rank in range(num_ranks):
            if (rank, step) not in reads:
                found.append(f"rank {rank} has not read step {step}")
                continue
            read = reads[rank, step][-1][1]
            if read.first != position:
                found.append(f"rank {rank}, step {step} begins at position {read.first}, not {position}")
            position = read.stop
    return found + wrong_starts(notes)


def wrong_starts(notes: Notes) -> list[str]:
    """Starts whose steps do not follow each other, or that do not go on from the newest checkpoint."""
    found: list[str] = []
    saved = {0}
    last: dict[tuple[int, int], int] = {}
    for line in notes.lines:
        if line["what"] == "saved" and line["rank"] == 0:
            saved.add(line["step"])
        if line["what"] != "batch":
            continue
        key = line["start"], line["rank"]
        before = last.get(key)
        if before is None and line["step"] - 1 < max(saved):
            found.append(f"start {key[0]} goes on from step {line['step'] - 1}, though {max(saved)} was saved")
        if before is not None and line["step"] != before + 1:
            found.append(f"start {key[0]}, rank {key[1]}: step {line['step']} comes after {before}")
        last[key] = line["step"]
    return found
