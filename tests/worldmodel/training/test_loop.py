import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from tests.worldmodel.training.toy import BATCH_SIZE, Toy, finish, launch, train_toy
from worldmodel.errors import CheckpointError
from worldmodel.training import hanging
from worldmodel.training.checkpoint import newest
from worldmodel.training.loop import NonFiniteLossError, due
from worldmodel.training.report import Report
from worldmodel.training.signals import StopRequest


def scalars(run: Path) -> EventAccumulator:
    return EventAccumulator(str(run / "tensorboard")).Reload()


def same_weights(one: Path, other: Path) -> bool:
    first, second = load_file(one / "weights.safetensors"), load_file(other / "weights.safetensors")
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("stage", "precision"), [(0, "fp32"), (1, "fp32"), (2, "fp32"), (3, "fp32"), (1, "bf16")])
def test_six_steps_are_three_and_three_bit_for_bit(tmp_path: Path, stage: int, precision: str):
    options: dict[str, Any] = {"zero_stage": stage, "precision": precision}
    whole, result = train_toy(tmp_path / "whole", **options)
    assert (result.step, result.position, result.interrupted) == (6, 6 * BATCH_SIZE, False)
    stop = StopRequest()
    first = Toy()
    first.at_call = lambda number: number == 3 and stop.handle(signal.SIGTERM)
    _, half = train_toy(tmp_path / "halves", first, stop=stop, **options)
    assert (half.step, half.position, half.interrupted) == (3, 3 * BATCH_SIZE, True)
    torch.manual_seed(99)
    second, end = train_toy(tmp_path / "halves", resume=True, **options)
    assert first.losses + second.losses == whole.losses
    assert same_weights(end.checkpoint, result.checkpoint)
    assert second.num_calls == 6
    assert len(set(whole.losses)) == 6


def test_training_lowers_the_loss(tmp_path: Path):
    toy, _ = train_toy(tmp_path, Toy(noise=0.0), steps=60)
    assert toy.losses[-1] < 0.5 * toy.losses[0]


def test_means_rates_and_norms_are_reported(tmp_path: Path):
    toy, _ = train_toy(tmp_path, report_every=2)
    events = scalars(tmp_path)
    assert set(events.Tags()["scalars"]) == {
        "loss",
        "twice",
        "optimizer/learning_rate",
        "optimizer/gradient_norm",
        "optimizer/num_skipped",
        "speed/samples_per_second",
        "speed/share_waited_for_data",
        "speed/teraflops_per_second",
        "speed/mfu",
        "data/num_failed",
        "data/read_share",
        "data/collate_share",
    }
    loss = [(event.step, event.value) for event in events.Scalars("loss")]
    pairs = zip(toy.losses[::2], toy.losses[1::2], strict=True)
    expected = [(2 * index + 2, sum(pair) / 2) for index, pair in enumerate(pairs)]
    assert [step for step, _ in loss] == [2, 4, 6]
    assert [value for _, value in loss] == pytest.approx([value for _, value in expected], rel=1e-5)
    assert [event.value for event in events.Scalars("twice")] == pytest.approx([2 * v for _, v in expected], rel=1e-5)
    assert events.Scalars("optimizer/learning_rate")[0].value == pytest.approx(1e-2)
    assert all(0 <= event.value <= 1 for event in events.Scalars("speed/share_waited_for_data"))
    layers = [module for module in toy.net if isinstance(module, nn.Linear)]
    needed = 3 * 2 * BATCH_SIZE * sum(layer.weight.numel() for layer in layers)
    rates = zip(events.Scalars("speed/teraflops_per_second"), events.Scalars("speed/samples_per_second"), strict=True)
    assert all(flops.value * 1e12 == pytest.approx(needed * rate.value / BATCH_SIZE, rel=1e-4) for flops, rate in rates)
    assert all(0 < event.value < 1 for event in events.Scalars("speed/mfu"))
    read, collate = (events.Scalars(f"data/{stage}_share") for stage in ("read", "collate"))
    assert [one.value + other.value for one, other in zip(read, collate, strict=True)] == pytest.approx([1, 1, 1])


def test_curves_of_a_resumed_run_do_not_fork(tmp_path: Path):
    stop = StopRequest()
    toy = Toy()
    toy.at_call = lambda number: number == 4 and stop.handle(signal.SIGTERM)
    train_toy(tmp_path, toy, stop=stop, checkpoint_every=0)
    train_toy(tmp_path, resume=True)
    assert [event.step for event in scalars(tmp_path).Scalars("loss")] == [2, 4, 6]


def test_curves_of_a_run_that_begins_again_do_not_fork(tmp_path: Path):
    class Killed(BaseException):
        pass

    def kill(number: int) -> None:
        if number == 4:
            raise Killed

    toy = Toy()
    toy.at_call = kill
    with pytest.raises(Killed):
        train_toy(tmp_path, toy, report_every=1)
    train_toy(tmp_path, report_every=1)  # no checkpoint was there to resume from
    assert [event.step for event in scalars(tmp_path).Scalars("loss")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("stage", [1, 3])
def test_a_preview_sees_whole_weights_and_changes_nothing(tmp_path: Path, stage: int):
    seen = []

    def preview(objective: Toy, report: Report, step: int) -> None:
        assert not objective.training
        assert not torch.is_grad_enabled()
        torch.rand(100)
        seen.append((step, tuple(objective.first_weight.shape)))
        report.scalars({"preview": step}, step)

    without, _ = train_toy(tmp_path / "without", zero_stage=stage)
    toy = Toy()
    toy.net[2].eval()
    with_it, _ = train_toy(tmp_path / "with", toy, zero_stage=stage, preview=preview, preview_every=4)
    assert seen == [(4, (16, 8)), (6, (16, 8))]
    assert with_it.losses == without.losses
    assert with_it.training
    assert not with_it.net[2].training
    assert [event.value for event in scalars(tmp_path / "with").Scalars("preview")] == [4, 6]


def test_checkpoints_come_at_their_steps_and_at_the_end(tmp_path: Path):
    train_toy(tmp_path, checkpoint_every=2, steps=5, keep_checkpoints=9)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["latest", "step_00000002", "step_00000004", "step_00000005"]


def test_a_finished_run_resumes_into_nothing(tmp_path: Path):
    _, first = train_toy(tmp_path)
    toy, again = train_toy(tmp_path, resume=True)
    assert toy.losses == []
    assert again == first


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path: Path):
    toy, weights = Toy(), []

    def break_it(number: int) -> None:
        weights.append(toy.first_weight.detach().clone())
        toy.noise = float("nan") if number == 2 else 0.1

    toy.at_call = break_it
    with pytest.raises(NonFiniteLossError, match=r"the loss of step 3 is not finite \(nan on .*lower learning_rate"):
        train_toy(tmp_path, toy, zero_stage=0, checkpoint_every=1)
    assert not torch.equal(weights[1], weights[2])
    assert torch.equal(toy.first_weight, weights[2])
    assert not (tmp_path / "checkpoints" / "step_00000003").exists()


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_gradient_that_is_not_finite_stops_before_the_update(tmp_path: Path, stage: int):
    toy = Toy(noise=0.0)
    broken = torch.tensor(1.0)
    toy.at_call = lambda number: broken.fill_(float("nan") if number == 4 else 1.0)
    toy.net[1].register_forward_hook(lambda module, given, made: BreaksGradient.apply(made, broken))
    path = tmp_path / "not_finite_step_00000002.json"
    with pytest.raises(NonFiniteLossError, match=f"the gradient of step 2 is not finite: .* is in {path}"):
        train_toy(tmp_path, toy, steps=3, zero_stage=stage, checkpoint_every=1, accumulate=2)
    assert [folder.name for folder in sorted((tmp_path / "checkpoints").glob("step*"))] == ["step_00000001"]
    (read,) = json.loads(path.read_text())["processes"]
    assert [(one["start"], one["stop"]) for one in read] == [(8, 12), (12, 16)]
    assert [float(one["loss"]) for one in read] == toy.losses[2:]


class BreaksGradient(torch.autograd.Function):
    """Leaves a tensor as it is, and multiplies its gradient."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        ctx.factor = factor
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient * ctx.factor, None


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_a_spike_is_left_out_told_and_counted_in_a_resumed_run_too(
    tmp_path: Path, stage: int, capfd: pytest.CaptureFixture[str]
):
    def spiking(first_step: int) -> Toy:
        toy, factor = Toy(), [1.0]

        def scale(module: torch.nn.Module, given: Any, made: torch.Tensor) -> torch.Tensor:
            return made * factor[0]

        toy.net.register_forward_hook(scale)
        toy.at_call = lambda number: factor.__setitem__(0, 50.0 if number + first_step == 21 else 1.0)
        return toy

    options: dict[str, Any] = {"steps": 24, "spike_factor": 4.0, "zero_stage": stage, "learning_rate": 1e-3}
    whole, _ = train_toy(tmp_path / "whole", spiking(0), **options)
    told = re.findall(r"warning: step (\d+) is left out as a spike: loss ([\d.]+), ", capfd.readouterr().err)
    assert [int(step) for step, _ in told] == [22]
    assert float(told[0][1]) == pytest.approx(whole.losses[21], rel=1e-3)
    assert whole.losses[22] < 3 * whole.losses[20]
    assert scalars(tmp_path / "whole").Scalars("optimizer/num_skipped")[-1].value == 1
    stop = StopRequest()
    first = spiking(0)
    at_call = first.at_call
    first.at_call = lambda number: (at_call(number), number == 18 and stop.handle(signal.SIGTERM))
    train_toy(tmp_path / "halves", first, stop=stop, **options)
    second, _ = train_toy(tmp_path / "halves", spiking(18), resume=True, **options)
    assert first.losses + second.losses == whole.losses


def test_every_update_is_watched_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    told: list[object] = []
    monkeypatch.setattr(hanging, "alive", lambda *given: told.append(given))
    monkeypatch.setattr(hanging, "rest", lambda: told.append("rest"))
    toy = Toy()
    toy.at_call = told.append
    train_toy(tmp_path, toy, steps=2, hang_seconds=7.0)
    assert told == [(7.0, "step 1"), 1, "rest", (7.0, "step 2"), 2, "rest", "rest"]


def test_a_run_is_checked_before_every_checkpoint(tmp_path: Path):
    seen = []

    def check() -> None:
        seen.append([path.name for path in sorted((tmp_path / "checkpoints").glob("step_*"))])
        if len(seen) == 3:
            raise CheckpointError("not in this state")

    with pytest.raises(CheckpointError, match="not in this state"):
        train_toy(tmp_path, checkpoint_every=2, check=check)
    assert seen == [[], ["step_00000002"], ["step_00000002", "step_00000004"]]
    assert not (tmp_path / "checkpoints" / "step_00000006").exists()


def test_a_run_with_checkpoints_is_not_begun_anew(tmp_path: Path):
    train_toy(tmp_path, steps=1)
    with pytest.raises(CheckpointError, match="already has checkpoints: resume it, or choose another folder"):
        train_toy(tmp_path)


def test_a_run_without_checkpoints_cannot_be_resumed(tmp_path: Path):
    with pytest.raises(CheckpointError, match="has no complete checkpoint: restore its files, or start a new run"):
        train_toy(tmp_path, resume=True)


def test_an_objective_that_asks_is_told_the_share_of_the_run_that_is_done(tmp_path: Path):
    toy, told = Toy(), []
    toy.share_done = 1.0  # type: ignore[assignment]
    toy.at_call = lambda number: told.append(toy.share_done)
    train_toy(tmp_path, toy, steps=4)
    assert told == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize(("step", "every", "expected"), [(4, 2, True), (5, 2, False), (4, 0, False)])
def test_zero_means_never(step: int, every: int, expected: bool):
    assert due(step, every) == expected


def test_a_signal_to_one_process_saves_on_both_and_asks_for_a_requeue(tmp_path: Path):
    processes = launch("interruptible", tmp_path, num_ranks=2, slurm=True, STEPS="1000000")
    wait_for(tmp_path / "running")
    os.kill(processes[1].pid, signal.SIGUSR1)
    finish(processes, code=75)
    assert newest(tmp_path / "run") is not None


def test_a_process_that_hangs_ends_all_with_their_stacks_and_the_run_goes_on(tmp_path: Path):
    printed = finish(launch("hanging_rank", tmp_path, num_ranks=2), code=1)
    assert all("has taken more than 15 s" in text for text in printed), printed
    assert "in wait_in_vain" in printed[1]
    assert "in wait_in_vain" not in printed[0]
    assert newest(tmp_path) == tmp_path / "checkpoints" / "step_00000002"
    assert train_toy(tmp_path, resume=True)[1].step == 6


def wait_for(path: Path) -> None:
    stop = time.monotonic() + 300  # two processes start on a machine that may be busy
    while not path.exists():
        assert time.monotonic() < stop, f"{path} did not come"
        time.sleep(0.1)


def test_the_progress_shows_on_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    train_toy(tmp_path)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "training on cpu in fp32, processes: 1, ZeRO stage: 1" in printed.err
    assert "6/6" in printed.err
    assert "loss=" in printed.err
    assert re.search(r" samples/s, the model waited \d+% for data, MFU \d+\.\d%", printed.err)


class Speaking(Toy):
    """Has something to say, and something wrong from its third report to its last but one."""

    def in_short(self, means: dict[str, float]) -> str:
        return f"twice {means['twice'] / means['loss']:.1f}"

    def alarms(self, means: dict[str, float]) -> dict[str, str]:
        number = len(self.losses)
        return {"early": f"early at {number}"} | ({"late": f"late at {number}"} if number in (4, 5) else {})


def test_what_an_objective_says_is_shown_and_what_is_wrong_is_said_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    train_toy(tmp_path, Speaking(), steps=6, warmup_steps=2, report_every=1)
    printed = capfd.readouterr().err
    assert ", twice 2.0" in printed
    said = re.findall(r"warning: step (\d): (early|late) at (\d)", printed)
    assert said == [("3", "early", "3"), ("4", "late", "4")]  # nothing in the warm-up


def test_what_was_mended_and_breaks_again_is_said_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    class Wavering(Speaking):
        def alarms(self, means: dict[str, float]) -> dict[str, str]:
            return {"odd": "odd"} if len(self.losses) % 2 else {}

    train_toy(tmp_path, Wavering(), steps=6, warmup_steps=0, report_every=1)
    assert re.findall(r"warning: step (\d): odd", capfd.readouterr().err) == ["1", "3", "5"]
