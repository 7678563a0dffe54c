from pathlib import Path

import numpy as np
import pytest
import torch

from tools.bench.latents import CONTENDERS, MODULES, info_of
from tools.bench.peers.rows import FIELDS, ByNumber, batch_of, random_rows, windows_of
from tools.bench.settings import LatentsSettings

SETTINGS = LatentsSettings(num_clips=7, num_frames=4, side=2, thumbnail=4)


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_contender_gives_the_same_batches(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tools.bench.peers.rows.WINDOW_FRAMES", 2)
    if name in MODULES:
        pytest.importorskip(MODULES[name])
    info = info_of(SETTINGS)
    rows = random_rows(info, SETTINGS)
    for each in {"ours", name}:
        CONTENDERS[each].write(tmp_path, info, rows)  # type: ignore[attr-defined] (every contender has it)
    contender = CONTENDERS[name](tmp_path, info)
    if name == "webdataset":  # has no clips by number
        assert not isinstance(contender, ByNumber)
        return
    assert isinstance(contender, ByNumber)
    for clips in ([3], [6, 0, 0, 2]):
        batch = contender.read_batch(clips)
        for array, field in FIELDS.items():
            assert np.array_equal(getattr(batch, field).numpy(), rows[array][clips]), field
        assert batch.picture.dtype == torch.int64
        assert batch.thumbnails.dtype == torch.uint8
    one, wanted = contender.read(5), batch_of({each: rows[each][5:6] for each in FIELDS})
    assert all(torch.equal(vars(one)[field], value) for field, value in vars(wanted).items())
    assert np.array_equal(contender.codes(5), rows["picture"][5])
    # Two frames of four from the start, and two to the end, also of the reversed and the faster view.
    for window in windows_of(info, SETTINGS.num_clips)[6:8]:
        part = contender.read_window(window)
        start = 2 * (window.item % 2)
        for array, cut in {
            "picture": slice(start, start + 2),
            "picture_reversed": slice(2 - start, 4 - start),
            "picture_fast": slice(start // 2, start // 2 + 1),
            "sound": slice(start, start + 2),
            "thumbnails": slice(start, start + 2),
        }.items():
            assert np.array_equal(getattr(part, FIELDS[array]).numpy(), rows[array][3:4, cut]), array
        assert np.array_equal(part.has_sound.numpy(), rows["has_sound"][3:4])


@pytest.mark.parametrize("name", sorted(set(CONTENDERS) - {"ours", "zarr", "webdataset"}))
def test_codes_can_be_kept_alone(name: str, tmp_path: Path):
    if name in MODULES:
        pytest.importorskip(MODULES[name])
    info = info_of(SETTINGS)
    codes = random_rows(info, SETTINGS)["picture"]
    CONTENDERS[name].write(tmp_path, info, {"picture": codes})  # type: ignore[attr-defined] (every contender has it)
    contender = CONTENDERS[name](tmp_path, info)
    assert isinstance(contender, ByNumber)
    assert all(np.array_equal(contender.codes(clip), codes[clip]) for clip in range(len(codes)))


def test_windows_cover_every_clip_evenly():
    info = info_of(LatentsSettings(num_clips=2, num_frames=40))
    found = [(window.clip, window.cuts["picture"]) for window in windows_of(info, 2)]
    assert found == [(clip, slice(start, start + 16)) for clip in range(2) for start in (0, 24)]
