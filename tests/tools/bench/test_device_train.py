import dataclasses

import pytest
import torch

from tools.bench import device_train
from tools.bench.device import resolved
from tools.bench.device_train import Form, build_training, freed, measure_training, require_near
from tools.bench.race import Finding, Race
from tools.bench.roofline import Peaks, num_trained
from tools.bench.settings import DeviceBenchSettings
from tools.bench.train import DENSE, EAGER
from tools.bench.untrained import TINY, settings_of

CPU = torch.device("cpu")
SETTINGS = resolved(DeviceBenchSettings(device="cpu", quick=True, compile=False), CPU)
PEAKS = Peaks(1e12, 1e9)


def test_a_size_gives_its_step_floors_mfu_and_memory():
    results = list(measure_training(TINY, SETTINGS, CPU, PEAKS))
    races = [result for result in results if isinstance(result, Race)]
    assert [set(race.costs) for race in races] == [{"ours", EAGER, DENSE}]
    assert races[0].clock == "second"
    found = {result.task: result.value for result in results if isinstance(result, Finding)}
    training = build_training(TINY, SETTINGS, CPU)
    # 10 numbers of 4 bytes for every parameter, at 1 GB/s, in ms.
    assert found["device: floor by bytes"] == pytest.approx(num_trained(training.objective) * 40 / 1e9 * 1e3)
    assert found["device: MFU, tiny"] == pytest.approx(
        100 * found["device: floor by operations"] / found["device: step"]
    )
    assert 0 < found["device: MFU, tiny"] <= 100
    assert found["device: same states"] <= 1e-3
    assert found["device: peak memory"] > 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_form_that_computes_something_else_is_not_in_the_race(precision: str, monkeypatch: pytest.MonkeyPatch):
    training = build_training(TINY, dataclasses.replace(SETTINGS, precision=precision), CPU)
    forms = {EAGER: Form("sdpa", False), DENSE: Form("dense", False)}
    assert require_near(training, forms, precision) <= device_train.NEAR_STATES[precision]
    # Frames see themselves alone where the form is the masked one.
    become = type(training).become

    def become_short(self: object, form: Form) -> None:
        become(training, form)
        training.objective.model.trunk.window_frames = 1 if form.attention == "dense" else 8

    monkeypatch.setattr(type(training), "become", become_short)
    with pytest.raises(AssertionError, match="the states differ by"):
        require_near(training, forms, precision)


def test_all_forms_train_the_same_weights():
    training = build_training(TINY, SETTINGS, CPU)
    before = [weight.detach().clone() for weight in training.objective.parameters()]
    backends = []
    for form in (Form("dense", False), Form("sdpa", True)):
        training.become(form)
        trunk = training.objective.model.trunk
        backends.append((trunk.blocks[0].attention.backend, trunk.blocks[0].compiled))
    assert backends == [("dense", False), ("sdpa", True)]
    training.step(Form("sdpa", False))
    moved = [not torch.equal(*pair) for pair in zip(before, training.objective.parameters(), strict=True)]
    assert sum(moved) > len(moved) // 2
    assert all(weight.grad is None for weight in training.objective.parameters())


def test_no_result_where_no_form_of_ours_fits(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def no_room(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(device_train, "update", no_room)
    assert list(measure_training(TINY, SETTINGS, CPU, PEAKS)) == []
    assert "train, tiny: ours as it is does not fit the memory of cpu: passed over" in capsys.readouterr().err


def test_what_was_let_go_is_freed_behind_an_error_too():
    with pytest.raises(ZeroDivisionError), freed(CPU):
        raise ZeroDivisionError


def test_the_model_is_that_of_its_configuration():
    assert settings_of("medium").sized().trunk.dim == 512
    assert build_training(TINY, SETTINGS, CPU).objective.model.settings.trunk.dim == 64
