"""Edit lists of mp4 and mov files, which FFmpeg applies without saying so."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# Boxes on the way from the file to its tracks' edit lists.
FOLDERS = {b"moov", b"trak", b"edts", b"mdia"}
MAX_EDITS = 1000


def rearranges_pictures(path: Path) -> bool:
    """Whether a picture track has an edit list that does more than begin at its first frame.

    That is more than one edit, or one that shows nothing for a while, or plays at another rate. An edit that hides the
    beginning cannot be told here from one that makes up for reordered frames: its hidden packets tell.
    """
    with path.open("rb") as file:
        for name, start, stop in _boxes(file, 0, file.seek(0, 2)):
            if name == b"trak":
                inside = {name: place for name, *place in _boxes(file, start, stop)}
                file.seek(inside.get(b"hdlr", [stop])[0] + 8)
                edits = _edits(file, *inside[b"elst"]) if file.read(4) == b"vide" and b"elst" in inside else []
                if len(edits) > 1 or any(edit != (0, 1) for edit in edits):
                    return True
    return False


def _boxes(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and stop of the contents of the boxes between two places, and of the boxes inside FOLDERS."""
    while start + 8 <= stop:
        file.seek(start)
        size, name = struct.unpack(">I4s", file.read(8))
        head = 8
        if size == 1:
            head, content = 16, file.read(8)
            size = struct.unpack(">Q", content)[0] if len(content) == 8 else 0
        elif size == 0:
            size = stop - start
        if size < head:
            return
        inside, after = start + head, min(start + size, stop)
        yield name, inside, after
        if name in FOLDERS:
            yield from _boxes(file, inside, after)
        start += size


def _edits(file: BinaryIO, start: int, stop: int) -> list[tuple[int, int]]:
    """For every edit whether it is empty (-1) or not (0), and its rate."""
    file.seek(start)
    content = file.read(min(stop - start, 8 + 20 * MAX_EDITS))
    if len(content) < 8:
        return []
    form = ">Qqhh" if content[0] == 1 else ">Iihh"
    whole = len(content[8:]) // struct.calcsize(form) * struct.calcsize(form)
    count = struct.unpack(">I", content[4:8])[0]
    edits = list(struct.iter_unpack(form, content[8 : 8 + whole]))[:count]
    return [(min(0, media_time), rate) for _, media_time, rate, _ in edits]
