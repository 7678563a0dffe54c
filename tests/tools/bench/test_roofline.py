import pytest
import torch
from torch import nn

from tools.bench import roofline
from tools.bench.roofline import Peaks, better, cache_bytes, measure_peaks, num_trained, step_bytes, weight_bytes


def test_floors_are_operations_and_bytes_at_the_best_speed():
    assert Peaks(50.0, 25.0).floors(100, 200) == (2.0, 8.0)


def test_a_step_moves_ten_numbers_for_every_trained_weight_as_counted_by_hand():
    # Read forwards and backwards, its gradient written, then AdamW: four read, three written.
    layers = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2).requires_grad_(False))
    assert num_trained(layers) == 3 * 5 + 5
    assert step_bytes(layers) == 4 * 10 * 20


def test_bytes_of_weights_and_caches_are_as_they_are_kept():
    layer = nn.Linear(3, 5)
    assert weight_bytes(layer, nn.Linear(2, 2, bias=False)) == 4 * (20 + 4)
    assert weight_bytes(layer.to(torch.bfloat16)) == 2 * 20
    key = torch.zeros(1, 2, 7, 16, dtype=torch.bfloat16)
    assert cache_bytes([(key, key), (key, key.float())]) == (3 * 2 + 4) * 2 * 7 * 16


def test_the_peaks_are_speeds_and_the_best_of_two_is_each_for_itself(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(roofline, "COPIED_BYTES", {"cpu": 2**20})
    monkeypatch.setattr(roofline, "SIDES", {"cpu": 64})
    peaks = measure_peaks(torch.device("cpu"), torch.bfloat16)
    assert peaks.flops_per_second > 1e5
    assert peaks.bytes_per_second > 1e5
    assert better(Peaks(1.0, 4.0), Peaks(2.0, 3.0)) == Peaks(2.0, 4.0)
