import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from tests.worldmodel.training.toy import (
    BATCH_SIZE,
    EXCHANGES,
    OPTIMIZERS,
    SETTINGS,
    HiddenToy,
    Toy,
    finish,
    halves_of,
    launch,
    losses_of_stages,
    make_loader,
    rest_of,
    train_toy,
)
from tests.worldmodel.training.world import steps_of_world
from worldmodel.attention import rotary_turns
from worldmodel.blocks import Block
from worldmodel.training import engine as engine_module
from worldmodel.training.engine import Engine, deepspeed_settings, parameter_groups, resolve_precision
from worldmodel.training.schedule import factor

STAGES = (0, 1, 2, 3)


@contextmanager
def engine_of(objective: nn.Module, **settings: Any) -> Iterator[Engine]:
    engine = Engine(objective, replace(SETTINGS, **settings), BATCH_SIZE)
    yield engine
    engine.close()


def steps_of(engine: Engine, toy: Toy, num_steps: int = 6, learning_rate: float = 1e-2) -> list[float]:
    """Losses and the last norm of a few steps over the toy's data."""
    batches = make_loader(0)
    norm = 0.0
    for _ in range(num_steps):
        for micro in next(batches).chunk(engine.num_micro):
            loss, _ = engine.forward(micro)
            engine.backward(loss)
        norm, made = engine.update(learning_rate)
        assert made
    return [*toy.losses, norm]


def plain_losses(num_steps: int = 6) -> tuple[list[float], list[float]]:
    """The loop's steps on one process without DeepSpeed: losses, and norms of the gradient."""
    toy = Toy(noise=0.0)
    optimizer = torch.optim.AdamW(parameter_groups(toy, SETTINGS))
    batches, norms = make_loader(0), []
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = SETTINGS.learning_rate * factor(step, SETTINGS.warmup_steps, num_steps)
        toy(next(batches))[0].backward()
        norms.append(float(nn.utils.clip_grad_norm_(toy.parameters(), SETTINGS.clip_norm)))
        optimizer.step()
        optimizer.zero_grad()
    return toy.losses, norms


def test_the_dictionary_is_a_function_of_the_settings():
    made = deepspeed_settings(replace(SETTINGS, zero_stage=2, clip_norm=0.5), batch_size=12, num_ranks=3)
    assert made == deepspeed_settings(replace(SETTINGS, zero_stage=2, clip_norm=0.5), batch_size=12, num_ranks=3)
    assert made["train_batch_size"] == 12
    assert made["train_micro_batch_size_per_gpu"] == 4
    assert made["zero_optimization"]["stage"] == 2
    assert made["gradient_clipping"] == 0.5
    assert json.loads(json.dumps(made)) == made


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="batch_size 8 must be a multiple of the 2 processes times 3 micro-batches"):
        deepspeed_settings(replace(SETTINGS, accumulate=3), batch_size=8, num_ranks=2)
    with pytest.raises(ValueError, match="batch_size 8 must be a multiple of the 3 processes"):
        deepspeed_settings(SETTINGS, batch_size=8, num_ranks=3)


def test_processes_that_share_clips_are_one_reader_and_deepspeed_is_not_told():
    shared = replace(SETTINGS, sequence_parallel=2)
    made = deepspeed_settings(shared, batch_size=12, num_ranks=8)
    assert made["train_micro_batch_size_per_gpu"] == 3
    assert made["train_batch_size"] == 3 * 8
    assert "sequence_parallel_size" not in made
    with pytest.raises(ValueError, match="training.sequence_parallel=2 must divide the 3 processes"):
        deepspeed_settings(shared, batch_size=12, num_ranks=3)
    with pytest.raises(ValueError, match="batch_size 9 must be a multiple of the 2 groups of 2 processes"):
        deepspeed_settings(shared, batch_size=9, num_ranks=4)


def test_sharing_clips_is_refused_where_there_is_no_trunk():
    with pytest.raises(ValueError, match="sequence_parallel=2 is for the world model's trunk: leave it at 1 here"):
        Engine(Toy(), replace(SETTINGS, sequence_parallel=2), BATCH_SIZE)


def test_only_trainable_matrices_decay():
    module = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4))
    module[2].weight.requires_grad_(False)
    matrices, others = parameter_groups(module, replace(SETTINGS, weight_decay=0.3))
    assert (matrices["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
    assert [parameter.ndim for parameter in matrices["params"]] == [2]
    assert len(others["params"]) == 4


def test_muon_gets_the_hidden_matrices_with_its_own_rate_and_adam_the_rest():
    toy = HiddenToy()
    settings = replace(SETTINGS, optimizer="muon", learning_rate=0.01, muon_learning_rate=0.05)
    matrices, others, hidden = parameter_groups(toy, settings)
    assert hidden["params"] == toy.hidden_matrices()
    assert [group["use_muon"] for group in (matrices, others, hidden)] == [False, False, True]
    marks = [vars(parameter)["use_muon"] for parameter in toy.net.parameters()]
    assert marks == [True, *[False] * 5]
    with engine_of(toy, optimizer="muon", learning_rate=0.01, muon_learning_rate=0.05) as engine:
        assert engine.ratios == pytest.approx([1.0, 1.0, 5.0])


class WideToy(HiddenToy):
    """Twice as wide as the rates were chosen for."""

    def wide_matrices(self) -> tuple[list[nn.Parameter], float]:
        return [self.net[0].weight, self.net[-1].weight], 0.5  # type: ignore[list-item]


def test_wide_matrices_have_their_share_of_adams_rate_and_muons_rate_is_its_own():
    toy = WideToy()
    wide, _ = toy.wide_matrices()
    *_, scaled, others = parameter_groups(toy, SETTINGS)
    assert [id(one) for one in scaled["params"]] == [id(one) for one in wide]
    assert all(one.ndim == 1 for one in others["params"])
    with engine_of(toy, learning_rate=0.01) as engine:
        assert engine.ratios == [0.5, 1.0]
        engine.backward(engine.forward(next(make_loader(0)))[0])
        engine.update(0.01)
        assert [group["lr"] for group in engine.engine.optimizer.param_groups] == [0.005, 0.01]
    with engine_of(WideToy(), optimizer="muon", learning_rate=0.01, muon_learning_rate=0.05) as engine:
        assert engine.ratios == pytest.approx([0.5, 1.0, 5.0])


def test_muon_is_refused_where_no_matrix_is_named():
    with pytest.raises(ValueError, match="optimizer=muon is for the world model's transformers: use adamw"):
        parameter_groups(Toy(), replace(SETTINGS, optimizer="muon"))


def test_a_step_of_muon_turns_a_hidden_matrix_by_its_rate_whatever_the_gradient():
    changes = []
    for scale in (1.0, 1000.0):
        toy = HiddenToy(noise=0.0)
        before = toy.first_weight.detach().clone()
        with engine_of(toy, zero_stage=0, optimizer="muon", weight_decay=0.0, muon_learning_rate=0.02) as engine:
            loss, _ = engine.forward(next(make_loader(0)))
            engine.backward(scale * loss)
            engine.update(SETTINGS.learning_rate)
        changes.append(toy.first_weight.detach() - before)
    assert torch.allclose(*changes, atol=1e-4)
    # Orthogonalised: singular values, which a gradient spreads over decades, lie near the rate times sqrt(16 / 8).
    values = torch.linalg.svdvals(changes[0]) / (0.02 * 2**0.5)
    assert 0.5 < values.median() < values.max() < 1.5


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_makes_the_same_steps_of_muon(stage: int):
    found = []
    for tried in (0, stage):
        toy = HiddenToy(noise=0.0)
        with engine_of(toy, zero_stage=tried, optimizer="muon", clip_norm=1e-3) as engine:
            steps_of(engine, toy)
        found.append(toy.losses)
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    assert found[0][-1] < 0.7 * found[0][0]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("stage", STAGES)
def test_micro_batches_make_the_steps_of_the_whole_batch(stage: int, optimizer: str):
    found = {}
    for accumulate in (1, 4):
        toy = HiddenToy(noise=0.0)
        with engine_of(toy, zero_stage=stage, optimizer=optimizer, accumulate=accumulate) as engine:
            *losses, norm = steps_of(engine, toy)
        found[accumulate] = [*torch.tensor(losses).view(-1, accumulate).mean(1).tolist(), norm]
    # Muon's iterations are in bfloat16, whose sums of products some processors round in other places.
    assert found[4] == pytest.approx(found[1], rel=1e-5 if optimizer == "adamw" else 5e-3)


@pytest.mark.parametrize(
    ("stage", "offload", "optimizer"),
    [(1, "optimizer", "adamw"), (2, "optimizer", "adamw"), (3, "optimizer", "adamw"), (3, "parameters", "adamw")]
    + [(stage, "optimizer", "muon") for stage in (1, 2, 3)],
)
def test_offloading_changes_no_step(stage: int, offload: str, optimizer: str):
    found = {}
    for kept in ("none", offload):
        toy = HiddenToy(noise=0.0)
        with engine_of(toy, zero_stage=stage, offload=kept, optimizer=optimizer, accumulate=2) as engine:
            found[kept] = steps_of(engine, toy)
    assert found[offload] == pytest.approx(found["none"], rel=1e-6)


def test_the_dictionary_says_what_is_offloaded():
    for offload, names in {"none": set(), "optimizer": {"optimizer"}, "parameters": {"optimizer", "param"}}.items():
        made = deepspeed_settings(replace(SETTINGS, zero_stage=3, offload=offload), batch_size=8, num_ranks=1)
        devices = {name: part["device"] for name, part in made["zero_optimization"].items() if "offload" in name}
        assert devices == {f"offload_{name}": "cpu" for name in names}


def test_recomputing_is_refused_where_there_are_no_transformers():
    with pytest.raises(ValueError, match="recompute_activations is for the world model's transformers"):
        Engine(Toy(), replace(SETTINGS, recompute_activations=True), BATCH_SIZE)


class Blocks(Toy):
    """Two of the transformers' blocks over the vectors."""

    def __init__(self) -> None:
        super().__init__(noise=0.0)
        self.blocks = nn.ModuleList(Block(32, 2) for _ in range(2))
        self.enter, self.leave = nn.Linear(8, 32), nn.Linear(32, 8)
        self.turns = rotary_turns(torch.zeros(4), torch.rand(4, 2), 16)
        self.num_runs = 0

    def recompute_activations(self, on: bool) -> None:
        for block in self.blocks:
            block.recompute = on  # type: ignore[assignment]
            block.attention_norm.register_forward_hook(self.count)  # type: ignore[union-attr]

    def count(self, *_: object) -> None:
        self.num_runs += 1

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        x = self.enter(batch).unflatten(0, (-1, 4))
        for block in self.blocks:
            x = block(x, self.turns, None, None)
        loss = (self.leave(x).flatten(0, 1) - batch).square().mean()
        self.losses.append(loss.detach().item())
        return loss, {}


@pytest.mark.parametrize(("stage", "precision"), [(0, "fp32"), (1, "fp32"), (2, "fp32"), (3, "fp32"), (1, "bf16")])
def test_recomputed_activations_are_those_that_were_kept_to_the_bit(stage: int, precision: str):
    found, runs = [], []
    for on in (False, True):
        torch.manual_seed(3)
        toy = Blocks()
        with engine_of(toy, zero_stage=stage, precision=precision, recompute_activations=on) as engine:
            found.append(steps_of(engine, toy, num_steps=3, learning_rate=1e-2))
        runs.append(toy.num_runs)
    assert found[0] == found[1]
    assert found[0][2] < found[0][0]
    assert runs == [2 * 3, 2 * 2 * 3]


@pytest.mark.parametrize(("stage", "offload"), [(0, "none"), (1, "none"), (2, "none"), (3, "none"), (1, "optimizer")])
def test_an_update_with_too_large_a_norm_is_as_if_it_had_never_been(stage: int, offload: str):
    found = []
    for bounds in ((1e9, -1.0, 1e-9, 1e9), (1e9, None, None, 1e9)):
        toy, norms = Toy(noise=0.0), []
        with engine_of(toy, zero_stage=stage, offload=offload, clip_norm=0.0) as engine:
            for bound, batch in zip(bounds, make_loader(0), strict=False):
                if bound is None:
                    continue
                engine.backward(engine.forward(batch)[0])
                norm, made = engine.update(1e-2, bound)
                assert made == (bound == 1e9)
                norms.append(norm)
            assert engine.num_updates == 2
        found.append((toy.losses, norms))
    (with_them, norms), (without, _) = found
    assert [with_them[0], with_them[3]] == without
    assert all(norm > 0.01 for norm in norms)


def test_an_objective_without_parameters_is_refused():
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        Engine(nn.Identity(), SETTINGS, BATCH_SIZE)


def test_auto_is_bf16_only_where_it_is_native(monkeypatch: pytest.MonkeyPatch):
    cpu = torch.device("cpu")
    for ability in ("avx512_bf16", "amx_bf16"):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda ability=ability: {ability: True})
        assert resolve_precision("auto", cpu) == "bf16"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert resolve_precision("auto", cpu) == "fp32"
    assert resolve_precision("bf16", cpu) == "bf16"
    for native, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
        assert resolve_precision("auto", torch.device("cuda")) == precision


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_makes_the_steps_of_plain_torch(stage: int):
    toy = Toy(noise=0.0)
    rates = [SETTINGS.learning_rate * factor(step, SETTINGS.warmup_steps, SETTINGS.steps) for step in range(6)]
    expected, expected_norms = plain_losses()
    batches, norms = make_loader(0), []
    with engine_of(toy, zero_stage=stage) as engine:
        for rate in rates:
            loss, metrics = engine.forward(next(batches))
            engine.backward(loss)
            norms.append(engine.update(rate)[0])
            assert not metrics["twice"].requires_grad
    assert toy.losses == pytest.approx(expected, abs=1e-6)
    assert norms == pytest.approx(expected_norms, rel=1e-4)


@pytest.mark.parametrize("stage", STAGES)
def test_a_small_bound_clips_and_no_bound_does_not(stage: int):
    found = {}
    for bound in (0.0, 1e9, 1e-3):
        toy = Toy(noise=0.0)
        # Adam undoes a constant factor; a large epsilon would show it, but so does a bound that only some steps reach.
        with engine_of(toy, zero_stage=stage, clip_norm=bound) as engine:
            found[bound] = steps_of(engine, toy)
    assert found[0.0] == found[1e9]
    assert found[1e-3] != found[1e9]
    assert found[1e-3][-1] > 1e-3


@pytest.mark.parametrize("stage", [1, 3])
def test_bf16_keeps_fp32_weights_and_follows_fp32_closely(stage: int):
    toy = Toy(noise=0.0)
    with engine_of(toy, zero_stage=stage, precision="bf16") as engine:
        dtypes = []
        toy.net[0].register_forward_hook(lambda module, given, made: dtypes.append(made.dtype))
        steps_of(engine, toy)
        weights = engine.weights()
    reference = Toy(noise=0.0)
    with engine_of(reference, zero_stage=stage) as engine:
        steps_of(engine, reference)
    assert set(dtypes) == {torch.bfloat16}
    assert {value.dtype for name, value in weights.items() if name != "num_calls"} == {torch.float32}
    assert toy.losses == pytest.approx(reference.losses, rel=0.03)
    assert toy.losses != reference.losses


@pytest.mark.parametrize("stage", STAGES)
def test_after_closing_the_objective_has_its_trained_weights(stage: int):
    toy = Toy(noise=0.0)
    with engine_of(toy, zero_stage=stage) as engine:
        steps_of(engine, toy)
        weights = engine.weights()
    assert set(weights) == set(Toy().state_dict())
    assert all(torch.equal(value, weights[name]) for name, value in toy.state_dict().items())
    toy(torch.zeros(2, 8))[0].backward()
    assert all(parameter.grad is not None for parameter in toy.parameters())


def test_whole_parameters_survive_repeated_calls_under_stage_3():
    toy = Toy(noise=0.0)
    with engine_of(toy, zero_stage=3) as engine:
        steps_of(engine, toy, num_steps=1)
        with engine.whole(), torch.no_grad():
            losses = [float(toy(torch.ones(2, 8))[0]) for _ in range(3)]
            shapes = [tuple(parameter.shape) for parameter in toy.parameters()]
        steps_of(engine, toy, num_steps=1)
    assert losses[0] == losses[1] == losses[2]
    assert shapes == [tuple(parameter.shape) for parameter in Toy().parameters()]


def test_deepspeed_is_quiet(capfd: pytest.CaptureFixture[str]):
    toy = Toy()
    with engine_of(toy) as engine:
        steps_of(engine, toy, num_steps=1)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err == ""
    assert engine_module.deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] is False


def found_by(num_ranks: int, case: str, folder: Path) -> list[dict[str, Any]]:
    finish(launch(case, folder, num_ranks=num_ranks))
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(num_ranks)]


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process has begun runs in `one`; when there are several, they begin others in `several`."""
    folder = tmp_path_factory.mktemp("two")
    halves_of(folder / "one")
    return folder


@pytest.fixture(scope="module")
def two_processes(halves: Path) -> list[dict[str, Any]]:
    return found_by(2, "every_stage", halves)


@pytest.fixture(scope="module")
def four_processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return found_by(4, "sameness", tmp_path_factory.mktemp("four"))


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return losses_of_stages(tmp_path_factory.mktemp("one"))


@pytest.mark.parametrize("number", ["two", "four"])
def test_several_processes_train_as_one_on_the_same_batch(
    number: str, one_process: dict[str, Any], request: pytest.FixtureRequest
):
    expected, _ = plain_losses(20)
    for found in [one_process, *request.getfixturevalue(f"{number}_processes")]:
        for name in ("0", "1", "2", "3", "micro"):
            assert found[f"losses{name}"] == pytest.approx(expected, rel=1e-5), name
            assert found[f"sum{name}"] == pytest.approx(one_process["sum0"], abs=1e-4), name
        # Products of 8 bits: the same on any number of processes but for the order of sums, and near those of 24 bits.
        # Measured on two: 1.4e-3 (in fp32: 2e-7).
        assert found["lossesbf16"] == pytest.approx(one_process["lossesbf16"], rel=0.01)
        assert found["lossesbf16"] == pytest.approx(expected, rel=0.03)
        assert found["lossesbf16"] != found["losses1"]


def test_four_processes_share_clips_or_matrices_as_two_and_as_one(
    two_processes: list[dict[str, Any]], four_processes: list[dict[str, Any]]
):
    alone, two = steps_of_world(num_steps=4), two_processes[0]["world"]
    assert two["losses"] != pytest.approx(alone["losses"], rel=1e-4)  # which read different clips
    for found in four_processes:
        for name, expected in (("groups of 2", two), ("group of 4", alone), ("matrices of groups of 2", two)):
            assert found[name]["losses"] == pytest.approx(expected["losses"], rel=1e-5), name
            assert found[name]["norms"] == pytest.approx(expected["norms"], rel=1e-3), name


def test_state_that_is_cut_twice_is_put_back_to_the_bit(four_processes: list[dict[str, Any]]):
    assert [found["put back"] for found in four_processes] == [True] * 4


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_goes_on_with_another_number_of_processes_in_another_stage(
    optimizer: str, halves: Path, two_processes: list[dict[str, Any]], tmp_path: Path
):
    whole, _ = train_toy(tmp_path, HiddenToy(noise=0.0), optimizer=optimizer, zero_stage=0)
    later = rest_of(halves / "several", optimizer)
    for before, _ in EXCHANGES:
        name = f"{optimizer}{before}"
        assert later[name] == pytest.approx(whole.losses[3:], rel=1e-5), f"two to one from stage {before}"
        for found in two_processes:
            assert found["rest"][name] == pytest.approx(whole.losses[3:], rel=1e-5), f"one to two from stage {before}"


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_train_with_muon_as_one(two_processes: list[dict[str, Any]], stage: int):
    alone = HiddenToy(noise=0.0)
    batches = make_loader(0)
    with engine_of(alone, optimizer="muon", zero_stage=0) as engine:
        for step in range(6):
            loss, _ = engine.forward(next(batches))
            engine.backward(loss)
            engine.update(SETTINGS.learning_rate * factor(step, SETTINGS.warmup_steps, SETTINGS.steps))
    for found in two_processes:
        assert found[f"muon{stage}"] == pytest.approx(alone.losses, abs=1e-5)


def test_two_processes_stop_together_and_resume_exactly(two_processes: list[dict[str, Any]]):
    assert [found["same"] for found in two_processes] == [True, True]


def test_two_processes_draw_differently_and_know_each_other(two_processes: list[dict[str, Any]]):
    first, second = two_processes
    assert first["draws"] != second["draws"]
    assert first["texts"] == second["texts"] == ["rank 0", "rank 1"]


def test_the_slowest_process_is_reported(halves: Path, two_processes: list[dict[str, Any]]):
    curves = EventAccumulator(str(halves / "noisy" / "tensorboard")).Reload()
    names = ("speed/slowest_process_seconds", "speed/mean_process_seconds")
    slowest, mean = ([event.value for event in curves.Scalars(name)] for name in names)
    assert len(slowest) == 3
    assert all(most >= usual > 0 for most, usual in zip(slowest, mean, strict=True))


def test_what_every_process_read_before_a_broken_loss_is_written_down(
    halves: Path, two_processes: list[dict[str, Any]]
):
    path = halves / "broken" / "not_finite_step_00000003.json"
    (first,), (second,) = json.loads(path.read_text())["processes"]
    assert (first["start"], first["stop"]) == (16, 20)
    assert (second["start"], second["stop"], second["loss"]) == (20, 24, "nan")
    assert float(first["loss"]) > 0
    assert all(found["broken"].endswith(f"which samples every process read is in {path}") for found in two_processes)


def test_a_broken_loss_on_one_process_stops_the_other(two_processes: list[dict[str, Any]]):
    for found, loss in zip(two_processes, (r"[\d.]+", "nan"), strict=True):
        assert re.match(f"the loss of step 3 is not finite \\({loss} on process", found["broken"])
