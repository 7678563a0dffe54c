import json
import os
from pathlib import Path

import pytest

from tools.bench.__main__ import main
from tools.bench.latents import bytes_read, chosen_peers, forget
from tools.bench.settings import LatentsSettings

TINY = ["--num_clips=20", "--num_frames=4", "--side=2", "--thumbnail=4", "--batch=3", "--rounds=1"]


def test_a_run_prints_a_table_and_writes_all_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = [*TINY, "--round_seconds=0.01", "--cold_clips=2", "--peers=[memmap,zarr,npy]", f"--folder={tmp_path}"]
    assert main(["latents", *options, f"--output={tmp_path / 'numbers.json'}"]) == 0
    printed = capsys.readouterr().out
    for name in ("processor:", "random clips of a cache / numpy memmap", "20 clips of ", "numbers.json"):
        assert name in printed
    numbers = json.loads((tmp_path / "numbers.json").read_text(encoding="utf-8"))
    assert [race["task"] for race in numbers["races"]] == [
        "latents: single clips",
        "latents: batches of 3",
        "latents: epoch",
    ]
    for race in numbers["races"]:
        assert set(race["costs"]) == {"ours", "memmap", "zarr", "npy"}
        assert all(cost > 0 for costs in race["costs"].values() for cost in costs)
    row = next(row for row in numbers["table"] if row["requirement"]["tasks"] == "latents: single")
    costs = numbers["races"][0]["costs"]
    assert row["value"] == pytest.approx(costs["memmap"][0] / costs["ours"][0])
    assert [path.name for path in tmp_path.iterdir()] == ["numbers.json"]


def test_what_is_not_installed_is_named_and_passed_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("tools.bench.latents.find_spec", lambda name: None)
    assert chosen_peers(LatentsSettings(peers=["lmdb", "memmap"])) == ["ours", "memmap"]
    assert capsys.readouterr().out == "passed over: lmdb, since lmdb is not installed\n"


def test_an_unknown_peer_is_one_line_and_a_status(capsys: pytest.CaptureFixture[str]):
    assert main(["latents", "--peers=[nonsense]"]) == 1
    assert capsys.readouterr().err.startswith("error: peers nonsense: unknown; there are ours, memmap, zarr")


def test_what_was_forgotten_comes_from_the_disk_again(tmp_path: Path):
    with (tmp_path / "file").open("wb") as file:
        file.write(bytes(2**20))
        file.flush()
        os.fsync(file.fileno())
    forget(tmp_path)
    before = bytes_read()
    (tmp_path / "file").read_bytes()
    found = bytes_read() - before
    if found == 0:
        pytest.skip("the folder is in memory")
    assert found >= 2**20
