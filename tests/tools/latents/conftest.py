from pathlib import Path

import pytest

from tests.fake_codecs import FakePictureCodec, FakeSoundCodec, make_videos
from tools.latents import main


def runs_in(folder: Path) -> list[Path]:
    """Folders that stand for the runs of the fake codecs."""
    paths = [folder / "runs" / "picture", folder / "runs" / "sound"]
    for path in paths:
        path.mkdir(parents=True, exist_ok=True)
    return paths


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs named picture and sound hold the fake codecs."""
    made = {"picture": FakePictureCodec, "sound": FakeSoundCodec}
    monkeypatch.setattr("tools.latents.codecs.load_codec", lambda run: made[run.name]())


@pytest.fixture
def built(tmp_path: Path, runs: None) -> Path:
    make_videos(tmp_path / "videos")
    out = tmp_path / "OUT.zarr"
    codecs = ["--codec", *map(str, runs_in(tmp_path))]
    assert main(["build", str(tmp_path / "videos"), str(out), *codecs, "--clips.num_frames", "8", "--heldout=0.3"]) == 0
    return out
