"""Where videos are: local paths, or addresses that fsspec reads (http, object storage, memory)."""

import hashlib
import io
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob, has_magic
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from fsspec.utils import glob_translate
from upath import UPath

from streams.errors import MediaError
from streams.manifest import MANIFEST_SUFFIXES, Entry, Manifest

# What `Path | UPath` says, for readers: universal paths are not local here, local ones stay pathlib's.
Address = Path | UPath

SUFFIXES = {
    *(".3gp", ".asf", ".avi", ".flv", ".gif", ".ivf", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
    *(".mts", ".mxf", ".ogv", ".ts", ".webm", ".wmv"),
}
# Longest silence of a server, in which nothing comes, before it is given up.
TIMEOUT_SECONDS = 30.0
# Folders within folders that are searched on a server; pages that link to themselves have no end.
MAX_REMOTE_DEPTH = 16
READ_BYTES = 1 << 20
NOT_THERE = "no such file or folder; give a folder of videos, one video, or a glob"


def address_of(text: str | Address, timeout_seconds: float = TIMEOUT_SECONDS) -> Address:
    """A local path, or the address that a text with a protocol names; the inverse of `text_of`.

    Args:
        text: `folder/a.mp4`, `file:///folder/a.mp4`, `http://host/a.mp4`, `s3://bucket/a.mp4`, `memory://a.mp4`, …
        timeout_seconds: longest wait for a web server.

    Raises:
        MediaError: the protocol is unknown, or its library is not installed.
    """
    if not isinstance(text, str):
        return text
    protocol, divider, rest = text.partition("://")
    if not divider or not re.fullmatch(r"[a-z][a-z0-9+.-]*", protocol):
        return Path(text)
    if protocol in ("file", "local"):
        return Path(unquote(rest, errors="surrogateescape"))
    options: dict[str, Any] = {}
    if protocol in ("http", "https"):
        from aiohttp import ClientTimeout

        waits = ClientTimeout(total=None, sock_connect=timeout_seconds, sock_read=timeout_seconds)
        options = {"client_kwargs": {"timeout": waits}}
    try:
        address = UPath(text, **options)
        _ = address.fs
    except (ImportError, ValueError) as error:
        raise MediaError(
            f"{text}: cannot be reached by {protocol} ({error}); give a path or another address"
        ) from error
    return address


def text_of(address: Address) -> str:
    """A text from which `address_of` makes the address again; the name is percent-encoded where it is not UTF-8."""
    text = str(address)
    try:
        text.encode()
    except UnicodeEncodeError:
        return Path(text).absolute().as_uri()
    return text


def suffix_of(address: Address) -> str:
    """The ending in small letters; what a web address asks after a question mark does not count."""
    name = urlsplit(str(address)).path if isinstance(address, UPath) else address.name
    return Path(name).suffix.lower()


def find_videos(videos: str | Address, timeout_seconds: float = TIMEOUT_SECONDS) -> list[Address]:
    """Like `find_known`, by their addresses alone."""
    found = find_known(videos, timeout_seconds)
    return [address_of(each.path, timeout_seconds) if isinstance(each, Entry) else each for each in found]


def find_known(videos: str | Address, timeout_seconds: float = TIMEOUT_SECONDS) -> list[Address | Entry]:
    """All videos of a folder (and of those inside), one file, those that a glob matches, or a manifest's usable ones.

    Everything but a manifest is sorted. Hidden files and folders are passed over, and each real folder is searched
    once, whatever links lead to it. A folder within that may not be listed stands in the list by itself, so that
    whoever opens it counts and names it. Those of a manifest come with all that its scan found.

    Raises:
        MediaError: nothing is there, no video in it, it cannot be reached, or the manifest is damaged.
    """
    address = address_of(videos, timeout_seconds)
    found: list[Address | Entry]
    if suffix_of(address) in MANIFEST_SUFFIXES and not has_magic(str(videos)):
        with address_errors(address):
            found = [*Manifest.read(address).usable]
    elif isinstance(address, UPath):
        with address_errors(address):
            found = [*sorted(_find_remote(address), key=str)]
    else:
        found = [*sorted(_find_local(address))]
    if not found:
        raise MediaError(f"{videos}: no videos there; known endings are {' '.join(sorted(SUFFIXES))}")
    return found


@contextmanager
def address_errors(address: Address) -> Iterator[None]:
    """Turns what the operating system and fsspec raise into a MediaError with the address and the reason."""
    try:
        yield
    except read_errors() as error:
        # fsspec says of whatever went wrong on the web that the file is not there.
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        if isinstance(cause, FileNotFoundError) or getattr(cause, "status", 0) == 404:
            message = f"{address}: {NOT_THERE}"
        else:
            message = f"{address}: cannot be read ({reason_of(cause)}); check the address, or try again"
        raise MediaError(message) from error


def read_errors() -> tuple[type[Exception], ...]:
    """What reading an address may raise beside errors of the media."""
    from aiohttp import ClientError

    return (OSError, ClientError)


def reason_of(error: BaseException) -> str:
    """The reason in few words, without the path."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _find_local(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from _walk(path)
    elif os.path.lexists(path):
        yield path
    elif has_magic(str(path)):
        yield from _matching(path)
    else:
        raise MediaError(f"{path}: {NOT_THERE}")


def _matching(pattern: Path) -> Iterator[Path]:
    """Files that a glob matches; with `**` by searching its fixed part, since glob follows loops of links."""
    if "**" not in pattern.parts:
        # Path.glob takes no absolute patterns.
        yield from (path for path in map(Path, glob(str(pattern))) if _is_readable(path))  # noqa: PTH207
        return
    fixed = next(number for number, part in enumerate(pattern.parts) if has_magic(part))
    wanted = re.compile(glob_translate(str(pattern)))
    found = _walk(Path(*pattern.parts[:fixed]), any_suffix=True)
    yield from (path for path in found if wanted.match(str(path)))


def _walk(root: Path, any_suffix: bool = False) -> Iterator[Path]:
    """Videos of a folder and those inside, each real folder once, by its own name rather than by a link."""
    folders, links, seen = [root], list[Path](), set[tuple[int, int]]()
    while folders or links:
        folder = (folders or links).pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            paths = sorted(folder.iterdir(), reverse=True)
        except OSError:
            yield folder  # whoever opens it is told why
            continue
        for path in (path for path in paths if not path.name.startswith(".")):
            if os.path.isdir(path):  # noqa: PTH112 (Path.is_dir raises where a folder may not be entered)
                (links if path.is_symlink() else folders).append(path)
            elif (any_suffix or path.suffix.lower() in SUFFIXES) and _is_readable(path):
                yield path


def _is_readable(path: Path) -> bool:
    """Whether opening cannot wait forever, as it does for pipes; files that are gone or locked count, by an error."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return True
    return stat.S_ISREG(mode)


def _find_remote(address: UPath) -> Iterator[UPath]:
    files, text = address.fs, str(address)
    if has_magic(address.path):
        found: Any = files.glob(address.path, detail=True)
        names = [name for name, info in found.items() if info["type"] == "file" and not _last(name).startswith(".")]
        yield from (address_like(address, name) for name in names)
    elif suffix_of(address) in SUFFIXES:
        files.info(address.path)
        yield address
    elif files.isdir(address.path):
        yield from _walk_remote(address)
    elif files.exists(address.path):
        yield address
    else:
        raise FileNotFoundError(text)


def _walk_remote(root: UPath) -> Iterator[UPath]:
    """Videos beneath an address; what a page links to elsewhere is not followed."""
    base = root.path.rstrip("/") + "/"
    folders, seen = [(root.path, 0)], set[str]()
    while folders:
        folder, depth = folders.pop()
        seen.add(folder.rstrip("/"))
        for info in root.fs.ls(folder, detail=True):
            name = str(info["name"])
            if not name.startswith(base) or ".." in name.split("/") or _last(name).startswith("."):
                continue
            if info["type"] == "directory":
                if name.rstrip("/") not in seen and depth < MAX_REMOTE_DEPTH:
                    folders.append((name, depth + 1))
            elif suffix_of(address_like(root, name)) in SUFFIXES:
                yield address_like(root, name)


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]


def address_like(address: UPath, name: str) -> UPath:
    """Another file of the same file system, by the name that the file system gives it."""
    return UPath(name, protocol=address.protocol, **address.storage_options)


@contextmanager
def local_copy(address: Address, max_bytes: int = 0) -> Iterator[Path]:
    """The file by a local name; one that is not local is copied, and the copy goes at the end.

    Args:
        address: the file.
        max_bytes: most bytes to copy; 0 for any number.

    Raises:
        MediaError: it cannot be read, or is larger.
    """
    if not isinstance(address, UPath):
        yield address
        return
    with tempfile.TemporaryDirectory(prefix="videos-") as folder:
        copy = Path(folder) / f"copy{suffix_of(address)}"
        with address_errors(address), address.open("rb") as file, copy.open("wb") as out:
            while block := file.read(READ_BYTES):
                out.write(block)
                if max_bytes and out.tell() > max_bytes:
                    raise MediaError(
                        f"{address}: is larger than {max_bytes} bytes; raise max_file_bytes or leave it out"
                    )
        yield copy


def open_seekable(address: UPath) -> Any:
    """A file object that can be sought; where the server cannot send parts, of a copy that goes when it is closed."""
    with address_errors(address):
        file = address.open("rb")
        try:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
        except (ValueError, OSError):
            size = None
        if size is not None:
            return file
        raw = tempfile.TemporaryFile(prefix="videos-", buffering=0)  # noqa: SIM115 (closed with what is returned)
        with file:
            shutil.copyfileobj(file, raw)
        raw.seek(0)
        return SelfClosing(raw)


class SelfClosing(io.BufferedReader):
    """A file that is closed when nobody holds it any more, as the file objects of fsspec are."""

    def __del__(self) -> None:
        """Closes it."""
        self.close()


def content_hash(address: Address) -> str:
    """The sha256 of a file's bytes, in hexadecimal.

    Raises:
        MediaError: it cannot be read.
    """
    digest = hashlib.sha256()
    with address_errors(address), address.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def require_content(address: Address, size_bytes: int, expected: str) -> None:
    """Refuses a file that is not the one that was scanned.

    Raises:
        MediaError: its size or its sha256 is another, or it cannot be read.
    """
    if isinstance(address, Path):
        with address_errors(address):
            size = address.stat().st_size
        if size != size_bytes:
            raise MediaError(f"{address}: has {size} bytes, {size_bytes} when it was scanned; scan it again")
    found = content_hash(address)
    if found != expected:
        raise MediaError(f"{address}: its sha256 is {found[:12]}…, {expected[:12]}… when it was scanned; scan it again")
