from pathlib import Path

import pytest

from tools.latents import main


def test_verify_accepts_a_sound_cache_and_names_a_damaged_file(built: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["verify", str(built), "--codec", "picture", "sound", "--num_clips=2"]) == 0
    assert "100.00% of the picture codes of 2 clips" in capsys.readouterr().out
    chunk = next((built / "thumbnails" / "c").rglob("0"))
    file = next(path for path in sorted(chunk.parent.rglob("*")) if path.is_file())
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)
    assert main(["verify", str(built)]) == 1
    assert "1 files are not as they were written: thumbnails/c/0" in capsys.readouterr().err


def test_verify_refuses_another_codec(built: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["verify", str(built), "--codec", "picture"]) == 1
    assert "was made with sound codec fake-sound-1, but codec none was given" in capsys.readouterr().err


def test_verify_finds_the_codecs_that_the_cache_names(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["verify", str(built)]) == 0
    printed = capsys.readouterr().out
    assert "all codes of 9 clips are in their vocabularies" in printed
    assert "100.00% of the sound codes of 4 clips are what the codec gives now" in printed
    assert "dB and values from" in printed
    (tmp_path / "runs" / "sound").rmdir()
    assert main(["verify", str(built)]) == 0
    assert f"no codes were compared: the runs of its codecs ({tmp_path}/runs/sound) are gone" in capsys.readouterr().out


def test_a_video_that_changed_since_the_build_is_named(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for path in (tmp_path / "videos").iterdir():
        path.write_bytes(path.read_bytes() + b"more")
    assert main(["verify", str(built)]) == 1
    assert ".mp4 is gone or has changed since the cache was made" in capsys.readouterr().err
