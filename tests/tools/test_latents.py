import subprocess
import sys
import types
from pathlib import Path

import pytest

from tests.fake_codecs import CLIPS, FakePictureCodec, FakeSoundCodec, make_videos
from tools.latents import main
from worldmodel.cache.latents import LatentCache
from worldmodel.codecs.dct import PictureDCT
from worldmodel.codecs.store import save_codec
from worldmodel.settings import DctSettings


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs named picture and sound hold the fake codecs."""
    store = types.ModuleType("worldmodel.codecs.store")
    made = {"picture": FakePictureCodec, "sound": FakeSoundCodec}
    store.load_codec = lambda run: made[run.name]()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "worldmodel.codecs.store", store)


@pytest.fixture
def built(tmp_path: Path, runs: None) -> Path:
    make_videos(tmp_path / "videos")
    out = tmp_path / "OUT.zarr"
    codecs = ["--codec", "runs/picture", "runs/sound"]
    assert main(["build", str(tmp_path / "videos"), str(out), *codecs, "--clips.num_frames", "8", "--heldout=0.3"]) == 0
    return out


def test_info_prints_what_is_in_a_cache(built: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["info", str(built)]) == 0
    info = capsys.readouterr().out
    for expected in ("clips         9 of 8 frames", "videos        3,", "picture fake-picture-1", "sound fake-sound-1"):
        assert expected in info
    assert "finest codes change in still patches" in info
    assert "skipped       0" in info


def test_a_scale_of_several_planes_is_printed_with_their_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    make_videos(tmp_path / "videos")
    save_codec(tmp_path / "dct", PictureDCT(DctSettings(), CLIPS))
    arguments = [str(tmp_path / "videos"), str(tmp_path / "OUT.zarr"), "--codec", str(tmp_path / "dct")]
    assert main(["build", *arguments, "--clips.num_frames", "8"]) == 0
    grids = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("picture ")]
    assert grids == ["2x1x1", "2x2", "10x1x1", "5x2x2", "18x1x1", "9x2x2", "98x1x1", "49x2x2"]


def test_a_file_that_was_skipped_is_printed_with_its_reason(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"nothing")
    videos, options = str(tmp_path / "videos"), ["--codec", "picture", "--clips.num_frames=8", "--overwrite"]
    assert main(["build", videos, str(built), *options]) == 0
    printed = capsys.readouterr().out
    assert "skipped       1" in printed
    assert "broken.mp4: " in printed
    assert "sound" not in LatentCache(built).rows


def test_verify_accepts_a_sound_cache_and_names_a_damaged_file(built: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["verify", str(built), "--codec", "picture", "sound", "--num_clips=2"]) == 0
    assert "100.00% of the codes of 2 clips" in capsys.readouterr().out
    chunk = next((built / "thumbnails" / "c").rglob("0"))
    file = next(path for path in sorted(chunk.parent.rglob("*")) if path.is_file())
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)
    assert main(["verify", str(built)]) == 1
    assert "damaged chunks thumbnails/c/0" in capsys.readouterr().err


def test_verify_refuses_another_codec(built: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["verify", str(built), "--codec", "picture"]) == 1
    assert "was made with sound codec fake-sound-1, but codec none was given" in capsys.readouterr().err


def test_an_existing_cache_is_refused_in_one_line(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    capsys.readouterr()
    assert main(["build", str(tmp_path / "videos"), str(built), "--codec", "picture"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "--overwrite" in error
    assert error.count("\n") == 1


def test_help_is_answered_without_heavy_libraries():
    program = (
        "import sys; from tools.latents import main\n"
        "try: main(['build', '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'zarr', 'av', 'numpy'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "--clips.num_frames" in done.stdout
