import subprocess
import sys
from pathlib import Path

import pytest

from streams.manifest import Manifest
from tools.videos import build_parser, main

SHORT = ["--world.seconds=0.5", "--workers=1"]


def test_the_physics_world_is_written_and_then_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["physics", str(tmp_path / "out"), "--num-videos=3", "--seed=5", *SHORT]
    assert main(arguments) == 0
    assert "wrote 3 clips, kept 0" in capsys.readouterr().out
    assert [path.name for path in sorted((tmp_path / "out").glob("*.mp4"))] == [
        f"physics_000000{seed}.mp4" for seed in (5, 6, 7)
    ]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "wrote 0 clips, kept 3" in captured.out
    assert "3/3" in captured.err


def test_two_processes_write_what_one_writes(tmp_path: Path):
    main(["physics", str(tmp_path / "one"), "--num-videos=3", *SHORT])
    main(["physics", str(tmp_path / "two"), "--num-videos=3", *SHORT[:1], "--workers=2"])
    for path in sorted((tmp_path / "one").iterdir()):
        if path.suffix == ".mp4":
            assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_scan_writes_a_manifest_and_a_sheet_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main(["physics", str(tmp_path / "in"), "--num-videos=2", *SHORT])
    (tmp_path / "in" / "text.mp4").write_text("no video")
    arguments = ["scan", str(tmp_path / "in"), f"--out={tmp_path / 'm.parquet'}", "--workers=1"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "files         3: 2 usable, 1 not" in captured.out
    assert f"  {tmp_path / 'in' / 'text.mp4'}: cannot be decoded" in captured.out
    assert f"contact sheet {tmp_path / 'm.png'} (3 of 3 files)" in captured.out
    assert "3/3" in captured.err
    assert [len(Manifest.read(tmp_path / name).usable) for name in ("m.parquet", "m.csv")] == [2, 2]
    assert main(["scan", str(tmp_path / "m.parquet"), f"--out={tmp_path / 'n.parquet'}", "--sheet_files=0"]) == 0
    assert "files         3: 2 usable, 1 not" in capsys.readouterr().out
    assert not (tmp_path / "n.png").exists()


def test_limits_of_a_scan_are_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main(["physics", str(tmp_path / "in"), "--num-videos=1", *SHORT])
    out = f"--out={tmp_path / 'm.parquet'}"
    assert main(["scan", str(tmp_path / "in"), out, "--max_pixels=100", "--sheet_files=0", "--workers=1"]) == 0
    assert "64x64 pixels, max_pixels allows 100" in capsys.readouterr().out


def test_a_missing_folder_is_one_line_and_a_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["scan", str(tmp_path / "gone")]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'gone'}: no such file or folder")


def test_an_unknown_setting_is_refused_by_name(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["physics", "out", "--world.gravity=3"])
    assert "world.gravity" in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    program = "import sys; from tools.videos import build_parser; build_parser(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
