from itertools import islice
from pathlib import Path

import pytest
import torch

from tools.bench.latents import CONTENDERS, MODULES, info_of, require_same
from tools.bench.peers.records import NpyPerFrame, records_of
from tools.bench.peers.rows import FIELDS, random_rows
from tools.bench.settings import LatentsSettings

SETTINGS = LatentsSettings(num_clips=20, num_frames=4, side=2, thumbnail=4, batch=5)


def test_a_record_holds_all_that_a_batch_needs():
    rows = random_rows(info_of(SETTINGS), SETTINGS)
    records = records_of(rows)
    assert len(records) == 20
    assert {len(record) for record in records} == {sum(rows[name].nbytes for name in FIELDS) // 20}


# webdataset leaves its files to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["npy", "lmdb", "mds", "litdata", "webdataset"])
def test_epochs_hold_every_clip_once_and_are_shuffled(name: str, tmp_path: Path):
    if name in MODULES:
        pytest.importorskip(MODULES[name])
    info = info_of(SETTINGS)
    rows = random_rows(info, SETTINGS)
    for each in ("ours", name):
        CONTENDERS[each].write(tmp_path, info, rows)  # type: ignore[attr-defined] (every contender has it)
    contender = CONTENDERS[name](tmp_path, info)
    require_same({"ours": CONTENDERS["ours"](tmp_path, info), name: contender}, SETTINGS)
    epochs = list(islice(contender.epochs(20, 5, seed=1), 8))
    first, second = (torch.cat([batch.picture for batch in part]) for part in (epochs[:4], epochs[4:]))
    in_order = torch.from_numpy(rows["picture"].astype("int64"))
    for epoch in (first, second):
        assert len(epoch.flatten(1).unique(dim=0)) == 20
        assert not torch.equal(epoch, in_order)
    assert not torch.equal(first, second)


def test_a_frame_that_is_missing_is_an_error(tmp_path: Path):
    info = info_of(SETTINGS)
    NpyPerFrame.write(tmp_path, info, random_rows(info, SETTINGS))
    (tmp_path / "npy" / "3" / "1.npy").unlink()
    with pytest.raises(FileNotFoundError):
        NpyPerFrame(tmp_path, info).read(3)
