import gc
import hashlib
import os
import pickle
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from upath import UPath

from streams.addresses import (
    MAX_REMOTE_DEPTH,
    address_of,
    content_hash,
    find_videos,
    local_copy,
    open_seekable,
    require_content,
    suffix_of,
    text_of,
)
from streams.errors import MediaError
from streams.manifest import Entry, Manifest
from tests.streams.web import serving


@pytest.fixture
def memory() -> Iterator[UPath]:
    """A folder in fsspec's memory."""
    root = UPath("memory://scan")
    yield root
    root.fs.rm("/", recursive=True)


def put(*paths: Path | UPath) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"some bytes")


def test_a_folder_is_searched_to_the_bottom_for_known_endings(tmp_path: Path):
    wanted = [tmp_path / "a.mp4", tmp_path / "deep" / "er" / "b.MKV", tmp_path / "naïve クリップ.webm"]
    put(*wanted, tmp_path / "a.truth.npz", tmp_path / "notes.txt", tmp_path / ".a.mp4.partial")
    assert find_videos(tmp_path) == sorted(wanted)
    assert find_videos(str(tmp_path / "*.mp4")) == [wanted[0]]
    assert find_videos(str(tmp_path / "**" / "*.MKV")) == [wanted[1]]
    assert find_videos(wanted[0]) == [wanted[0]]


def test_hidden_files_partial_files_pipes_and_folders_that_look_like_videos_are_passed_over(tmp_path: Path):
    put(tmp_path / "a.mp4", tmp_path / ".b.mp4", tmp_path / ".cache" / "c.mp4", tmp_path / "d.mp4.partial")
    put(tmp_path / "folder.mp4" / "readme.txt")
    os.mkfifo(tmp_path / "pipe.mp4")
    assert find_videos(tmp_path) == [tmp_path / "a.mp4"]
    assert find_videos(str(tmp_path / "*.mp4")) == [tmp_path / "a.mp4"]


def test_loops_of_links_end_and_every_real_folder_is_searched_once(tmp_path: Path):
    put(tmp_path / "z" / "a.mp4", tmp_path / "z" / "deep" / "b.mp4")
    for number in range(3):  # together they would have 3 to the power of 40 names
        (tmp_path / "z" / f"loop{number}").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a_link").symlink_to(tmp_path / "z", target_is_directory=True)
    (tmp_path / "itself.mp4").symlink_to(tmp_path / "itself.mp4")
    found = [tmp_path / "itself.mp4", tmp_path / "z" / "a.mp4", tmp_path / "z" / "deep" / "b.mp4"]
    assert find_videos(tmp_path) == found
    assert find_videos(str(tmp_path / "**" / "*.mp4")) == found


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path: Path):
    put(tmp_path / "elsewhere" / "a.mp4")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert find_videos(tmp_path / "root") == [tmp_path / "root" / "link" / "a.mp4"]


def test_a_folder_that_may_not_be_listed_is_in_the_list_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put(tmp_path / "locked" / "a.mp4", tmp_path / "open" / "b.mp4")
    listed = Path.iterdir

    def iterdir(self: Path) -> Iterator[Path]:
        if self.name == "locked":
            raise PermissionError(13, "Permission denied", str(self))
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert find_videos(tmp_path) == [tmp_path / "locked", tmp_path / "open" / "b.mp4"]


@pytest.mark.parametrize("name", [b"line\nbreak.mp4", b"not utf-8 \xff\xfe.mp4", b"100%41 percent.mp4"])
def test_strange_names_are_found_and_survive_as_text(tmp_path: Path, name: bytes):
    path = tmp_path / os.fsdecode(name)
    put(path)
    assert find_videos(tmp_path) == [path]
    text = text_of(path)
    text.encode()
    assert address_of(text) == path


def test_a_missing_folder_is_a_media_error(tmp_path: Path):
    with pytest.raises(MediaError, match="no such file or folder; give a folder of videos"):
        find_videos(tmp_path / "gone")
    with pytest.raises(MediaError, match="no such file or folder"):
        find_videos(tmp_path / "gone.parquet")


def test_an_empty_folder_is_a_media_error(tmp_path: Path):
    with pytest.raises(MediaError, match=r"no videos there; known endings are \.3gp"):
        find_videos(tmp_path)
    with pytest.raises(MediaError, match="no videos there"):
        find_videos(str(tmp_path / "*.mp4"))


def test_a_manifest_gives_its_usable_files(tmp_path: Path):
    entries = (
        Entry(str(tmp_path / "a.mp4"), reader="pyav"),
        Entry(str(tmp_path / "b.mp4")),
        Entry("memory://c.mp4", reader="pyav"),
    )
    Manifest(entries).write(tmp_path / "m.parquet")
    for name in ("m.parquet", "m.csv"):
        assert find_videos(tmp_path / name) == [tmp_path / "a.mp4", UPath("memory://c.mp4")]


def test_memory_is_a_file_system_like_others(memory: UPath):
    put(memory / "a.mp4", memory / "deep" / "b.mkv", memory / "notes.txt", memory / ".c.mp4")
    assert [str(path) for path in find_videos("memory://scan")] == ["memory://scan/a.mp4", "memory://scan/deep/b.mkv"]
    assert [str(path) for path in find_videos("memory://scan/*.mp4")] == ["memory://scan/a.mp4"]
    assert [path.name for path in find_videos("memory://scan/a.mp4")] == ["a.mp4"]
    with pytest.raises(MediaError, match=r"memory://scan/gone\.mp4: no such file or folder"):
        find_videos("memory://scan/gone.mp4")
    with pytest.raises(MediaError, match="memory://gone: no such file or folder"):
        find_videos("memory://gone")


def test_a_web_folder_is_listed_and_what_it_links_to_elsewhere_is_not(tmp_path: Path):
    put(tmp_path / "in" / "a b.mp4", tmp_path / "in" / "deep" / "c.webm", tmp_path / "out.mp4")
    (tmp_path / "in" / "index").mkdir()
    page = '<a href="../../out.mp4">x</a> <a href="http://127.0.0.1:9/y.mp4">y</a> <a href="/in/index/d.mp4">d</a>'
    (tmp_path / "in" / "index" / "index.html").write_text(page + '<a href="/in/index/">itself</a>')
    with serving(tmp_path) as server:
        found = find_videos(f"{server}/in")
        assert [str(path) for path in found] == [
            f"{server}/in/a%20b.mp4",
            f"{server}/in/deep/c.webm",
            f"{server}/in/index/d.mp4",
        ]
        assert [str(path) for path in find_videos(f"{server}/in/a%20b.mp4")] == [f"{server}/in/a%20b.mp4"]
        with pytest.raises(MediaError, match=r"gone\.mp4: no such file or folder"):
            find_videos(f"{server}/gone.mp4")


def test_a_web_folder_without_end_ends(tmp_path: Path):
    # Every folder is the same page, which links one folder further.
    (tmp_path / "index.html").write_text('<a href="a.mp4">a</a>')
    folder = tmp_path
    for _ in range(MAX_REMOTE_DEPTH + 3):
        (folder / "index.html").write_text('<a href="a.mp4">a</a> <a href="deeper/">on</a>')
        folder = folder / "deeper"
        folder.mkdir()
    (folder / "index.html").write_text("")
    with serving(tmp_path) as server:
        assert len(find_videos(f"{server}/")) == MAX_REMOTE_DEPTH + 1


def test_an_address_that_does_not_answer_is_a_media_error(tmp_path: Path):
    with serving(tmp_path, silent=True) as server, pytest.raises(MediaError, match="cannot be read .*imeout"):
        find_videos(f"{server}/a.mp4", timeout_seconds=0.3)


def test_an_address_without_a_server_is_a_media_error():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(MediaError, match="cannot be read .*check the address, or try again"):
            find_videos(f"http://127.0.0.1:{taken.getsockname()[1]}/a.mp4")


def test_an_unknown_protocol_is_a_media_error():
    with pytest.raises(MediaError, match="nonsense://a/b.mp4: cannot be reached by nonsense"):
        address_of("nonsense://a/b.mp4")


def test_an_address_survives_pickling():
    address = address_of("http://127.0.0.1:1/a.mp4", timeout_seconds=3.0)
    copy = pickle.loads(pickle.dumps(address))
    assert copy == address
    assert copy.storage_options["client_kwargs"]["timeout"].sock_read == 3.0


def test_an_ending_is_that_of_the_file():
    assert suffix_of(address_of("http://host/a.MP4?token=x.txt")) == ".mp4"
    assert suffix_of(Path("a?b.MP4")) == ".mp4"


def test_a_copy_lives_as_long_as_it_is_needed_and_has_a_limit(memory: UPath):
    put(memory / "a.mp4")
    with local_copy(memory / "a.mp4") as path:
        assert path.read_bytes() == b"some bytes"
        assert path.suffix == ".mp4"
    assert not path.exists()
    with (
        pytest.raises(MediaError, match="is larger than 5 bytes; raise max_file_bytes"),
        local_copy(memory / "a.mp4", 5),
    ):
        pass


@pytest.mark.parametrize("in_parts", [True, False])
def test_a_web_file_can_be_sought(tmp_path: Path, in_parts: bool):
    (tmp_path / "a.mp4").write_bytes(bytes(range(256)) * 100)
    with serving(tmp_path, in_parts) as server:
        address = address_of(f"{server}/a.mp4")
        assert isinstance(address, UPath)
        file = open_seekable(address)
        file.seek(1000)
        assert file.read(3) == bytes([1000 % 256, 1001 % 256, 1002 % 256])
        file.seek(0)
        assert len(file.read()) == 25600
        del file
        gc.collect()  # a file left open would warn, and warnings are errors


def test_the_hash_is_that_of_the_bytes_and_guards_them(tmp_path: Path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"first")
    expected = hashlib.sha256(b"first").hexdigest()
    assert content_hash(path) == expected
    require_content(path, 5, expected)
    path.write_bytes(b"other")
    with pytest.raises(MediaError, match="its sha256 is d9298a10d1b0… ?, .*when it was scanned; scan it again"):
        require_content(path, 5, expected)
    path.write_bytes(b"longer")
    with pytest.raises(MediaError, match="has 6 bytes, 5 when it was scanned"):
        require_content(path, 5, expected)
    shutil.rmtree(tmp_path)
    with pytest.raises(MediaError, match="no such file or folder"):
        require_content(path, 5, expected)
