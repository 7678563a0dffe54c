import math

import pytest
import torch

from worldmodel.training.meter import Meter


def test_means_are_over_the_steps_since_the_last_read():
    meter = Meter()
    for value in (1.0, 2.0, 6.0):
        meter.add(torch.tensor(value), {"a": torch.tensor(-value)})
    assert meter.read() == {"a": -3.0, "loss": 3.0}
    meter.add(torch.tensor(5.0), {"a": torch.tensor(7.0)})
    assert meter.read() == {"a": 7.0, "loss": 5.0}


def test_a_metric_that_was_not_measured_is_left_out_of_the_mean():
    meter = Meter()
    for value in (float("nan"), 4.0, float("nan")):
        meter.add(torch.tensor(1.0), {"a": torch.tensor(value), "b": torch.tensor(float("nan"))})
    means = meter.read()
    assert means["a"] == 4.0
    assert math.isnan(means["b"])


def test_nothing_measured_reads_as_nothing():
    assert Meter().read() == {}


def test_a_changed_set_of_metrics_is_refused():
    meter = Meter()
    meter.add(torch.tensor(1.0), {"a": torch.tensor(1.0)})
    with pytest.raises(ValueError, match="differ from those of the step before"):
        meter.add(torch.tensor(1.0), {"b": torch.tensor(1.0)})
