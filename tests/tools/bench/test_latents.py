import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.bench.__main__ import main
from tools.bench.latents import bytes_read, chosen_peers, forget, info_of, require_same
from tools.bench.peers.rows import Memmap, Ours, random_rows
from tools.bench.settings import LatentsSettings
from worldmodel.cache.latents import CodeBatch

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
        "latents: windows",
        "latents: batches of 3",
        "latents: epoch",
        "latents: codes",
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


def test_who_reads_a_clip_of_an_epoch_twice_is_found(tmp_path: Path):
    class Stuck(Memmap):
        def epochs(self, num_clips: int, batch: int, seed: int) -> Iterator[CodeBatch]:
            return itertools.repeat(self.read_batch(range(batch)))

    settings = LatentsSettings(num_clips=20, num_frames=4, side=2, thumbnail=4, batch=5)
    info = info_of(settings)
    rows = random_rows(info, settings)
    Ours.write(tmp_path, info, rows)
    Memmap.write(tmp_path, info, rows)
    with pytest.raises(AssertionError, match="reads clips of an epoch twice"):
        require_same({"ours": Ours(tmp_path, info), "memmap": Stuck(tmp_path, info)}, settings)
