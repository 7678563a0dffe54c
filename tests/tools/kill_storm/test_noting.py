import os
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from streams.loader import Loader
from tests.worldmodel.whole_run import LOADER, TRAINING, WholeRun
from tools.kill_storm import noting
from tools.kill_storm.notes import Notes
from worldmodel.cache.latents import LatentSource
from worldmodel.commands import train_world
from worldmodel.training import checkpoint
from worldmodel.training.engine import Engine
from worldmodel.training.loop import Loop


def test_a_training_notes_what_it_reads_computes_and_saves(
    whole_run: WholeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    variables = {noting.NOTES: str(tmp_path / "notes"), noting.START: "7", "RANK": "0", "WORLD_SIZE": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # They are tapped for good; so put them back afterwards.
    for owner, name in ((Loader, "__next__"), (Loop, "micro_batch"), (checkpoint, "save"), (Engine, "close")):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    noting.tap()
    settings = replace(whole_run.settings, run=str(tmp_path / "run"), training=replace(TRAINING, steps=4))
    train_world(settings)
    notes = Notes(tmp_path / "notes")
    notes.more()
    kinds = [line["what"] for line in notes.lines]
    assert kinds == ["batch"] * 3 + ["saving", "saved", "batch", "saving", "saved", "end"]
    assert all((line["start"], line["rank"]) == (7, 0) for line in notes.lines)
    batches = list(notes.of("batch"))
    assert [(each["step"], each["first"], each["stop"]) for each in batches] == [
        (step, 4 * step - 4, 4 * step) for step in range(1, 5)
    ]
    assert [line["step"] for line in notes.of("saved")] == [3, 4]
    source = LatentSource(whole_run.cache, settings.num_frames)
    read = [next(Loader(source, LOADER, TRAINING.seed, each["first"])) for each in batches]
    assert [each["crc"] for each in batches] == [zlib.crc32(batch.picture.numpy().tobytes()) for batch in read]
    assert all(float.fromhex(each["loss"]) == pytest.approx(float.fromhex(each["own"])) for each in batches)
    assert len({each["loss"] for each in batches}) == 4


def test_a_note_is_one_whole_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written: list[bytes] = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, raw: written.append(raw) or write(descriptor, raw))
    for name, value in ((noting.NOTES, str(tmp_path / "notes")), (noting.START, "1"), ("RANK", "1")):
        monkeypatch.setenv(name, value)
    noting.note("saved", step=3)
    noting.note("saved", step=4)
    assert (tmp_path / "notes").read_bytes() == b"".join(written)
    assert [raw.count(b"\n") for raw in written] == [1, 1]
