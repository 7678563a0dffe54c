import dataclasses

import pytest

from tools.bench.footage import Footage
from tools.bench.settings import StreamsSettings
from tools.bench.tasks import training


def test_our_loader_races_against_random_clips(
    footage: list[Footage], settings: StreamsSettings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(training, "REPEATS", 3)
    before = sorted(footage[0].path.parent.iterdir())
    races = list(training.training_stream(footage, dataclasses.replace(settings, rounds=1)))
    assert [race.task for race in races] == ["training, stride 1", "training, stride 4"]
    for race in races:
        assert list(race.costs) == ["ours", "torchcodec"]
        assert all(len(costs) == 1 and min(costs) > 0 for costs in race.costs.values())
    assert sorted(footage[0].path.parent.iterdir()) == before


def test_frames_of_all_batches_are_counted(footage: list[Footage]):
    loader, num_batches = training.make_loader(footage[0].silent, stride=1)
    assert num_batches >= 8
    assert list(training.read_batches(loader, 2, 0)) == [training.BATCH * 16] * 2
    loader.close()
