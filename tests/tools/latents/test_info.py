from pathlib import Path

import pytest

from tools.latents import main


def test_info_prints_what_is_in_a_cache(built: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["info", str(built)]) == 0
    info = capsys.readouterr().out
    for expected in ("clips         9 of 8 frames", "videos        3,", "picture fake-picture-1", "sound fake-sound-1"):
        assert expected in info
    assert "finest codes change in still patches" in info
    assert "skipped       0" in info
    assert "heldout 0.3, batch_size 32" in info
    assert "MiB, mapped" in info
