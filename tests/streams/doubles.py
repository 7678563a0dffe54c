"""Stand-ins for what examines a file in a child process; functions of a module, since children are spawned."""

import os
import signal
import time
from pathlib import Path

from streams.addresses import Address
from streams.errors import MediaError
from streams.manifest import Entry
from streams.settings import ScanSettings


def act(name: str) -> str:
    """Does what the name says: hang, crash, leave, raise, fill memory, or answer."""
    if name.startswith("hang"):
        time.sleep(600)
    if name.startswith("crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if name.startswith("leave"):
        os._exit(3)
    if name.startswith("raise"):
        raise MediaError("nobody catches this")
    if name.startswith("fill"):
        try:
            return f"{len(bytearray(int(name.removeprefix('fill')) << 20)) >> 20} MiB"
        except MemoryError:
            return "out of memory"
    return f"{name} by {os.getpid()}"


def examine(address: Address, settings: ScanSettings) -> Entry:
    """Acts by the file's name, and notes in `examined` beside it that it was asked."""
    assert isinstance(address, Path)
    with (address.parent / "examined").open("a", encoding="utf-8") as file:
        file.write(f"{address.name}\n")
    # A library that is compared with PyAV crashes where PyAV does not.
    act("crash" if "decord" in settings.readers and address.name.startswith("decord") else address.name)
    status = address.stat()
    digest = address.read_bytes().hex().ljust(64, "0")
    return Entry(str(address), status.st_size, status.st_mtime, digest, "pyav", num_frames=7)
