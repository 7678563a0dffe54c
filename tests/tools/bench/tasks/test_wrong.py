from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.streams.ffmpeg import numbered_frames
from tools.bench.tasks import wrong


class Off:
    """Frames that are `shift` places off from a place on."""

    def __init__(self, shift: int, since: int = 0) -> None:
        self.frames = torch.from_numpy(numbered_frames().transpose(0, 3, 1, 2).copy())
        self.shift, self.since = shift, since

    def num_frames(self) -> int:
        return len(self.frames)

    def clip(self, indices: Sequence[int]) -> torch.Tensor:
        last = len(self.frames) - 1
        return self.frames[[min(index + self.shift * (index >= self.since), last) for index in indices]]

    def close(self) -> None:
        pass


def test_wrong_frames_are_counted():
    truth = numbered_frames().transpose(0, 3, 1, 2)
    assert wrong.count_wrong(Off(0), truth) == (0, 0)
    in_order, at_random = wrong.count_wrong(Off(2, since=40), truth)
    # The last frame is right again, since there is none after it.
    assert in_order == 19
    assert 5 < at_random < 40


def test_missing_frames_are_wrong():
    truth = numbered_frames(70).transpose(0, 3, 1, 2)
    in_order, at_random = wrong.count_wrong(Off(0), truth)
    assert (in_order, at_random) == (10, 10)


def test_frames_that_do_not_stand_upright_are_wrong():
    truth = numbered_frames(4).transpose(0, 3, 1, 2)
    assert wrong.are_wrong(np.rot90(truth, axes=(2, 3)), range(4), truth) == [True] * 4


def test_files_are_checked_in_a_process_of_their_own(tmp_path: Path):
    files = wrong.make_files(tmp_path, 1)
    path = next(iter(files.values()))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(path.read_bytes()[:2000])
    np.save(broken.with_suffix(".npy"), np.load(path.with_suffix(".npy")))
    right, unreadable = wrong.check_all("ours", {**files, "broken": broken})
    assert (right.value, right.note) == (0, "0 in order, 0 at random")
    assert (unreadable.subject, unreadable.value) == ("broken", 120)
    assert unreadable.note.startswith("cannot read it: ")


@pytest.mark.parametrize(("limit", "note"), [(60.0, "ends the process"), (0.0, "hangs for more than 0 s")])
def test_a_process_that_dies_or_hangs_costs_one_file(
    limit: float, note: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files = wrong.make_files(tmp_path, 1)
    monkeypatch.setattr(wrong, "START_SECONDS", limit)
    monkeypatch.setattr(wrong, "serve", die)
    [found] = wrong.check_all("ours", files)
    assert (found.value, found.note) == (120, note)


def die(*_: object) -> None:
    raise SystemExit(3)
