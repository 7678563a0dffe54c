import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.worldmodel.training.toy import BATCH_SIZE, SETTINGS, Toy, make_loader
from worldmodel.attention import rotary_turns
from worldmodel.blocks import Block
from worldmodel.training.engine import Engine
from worldmodel.training.memory import BUCKET_ELEMENTS, Activations, Kept, peak_bytes, state_bytes

WIDTH = 512
NUM_WEIGHTS = sum(weight.numel() for weight in Toy(WIDTH).parameters())


@contextmanager
def stepped(**settings: Any) -> Iterator[Engine]:
    """An engine after a step, with the gradients of the next."""
    toy = Toy(WIDTH)
    engine = Engine(toy, replace(SETTINGS, **settings), BATCH_SIZE)
    batches = make_loader(0)
    engine.backward(engine.forward(next(batches))[0])
    engine.update(1e-3)
    engine.backward(engine.forward(next(batches))[0])
    yield engine
    engine.close()


def sizes(tensors: list[Any]) -> int:
    return sum(each.numel() * each.element_size() for each in tensors if isinstance(each, Tensor) and each.ndim)


def held_by(engine: Engine, stage: int) -> dict[str, int]:
    """Bytes of the tensors that DeepSpeed really holds, by kind."""
    optimizer: Any = engine.engine.optimizer
    base: Any = optimizer if stage == 0 else optimizer.optimizer
    found = {"optimizer": sizes([value for state in base.state.values() for value in state.values()])}
    weights = list(engine.objective.parameters())
    if stage < 3:
        found["weights"] = sizes(weights)
    else:
        found["weights"] = sizes([one.ds_tensor for one in weights])  # type: ignore[attr-defined]
    if stage in (1, 2):
        found["masters"] = sizes(optimizer.single_partition_of_fp32_groups)
        found["gradients, own share"] = sizes([one for group in optimizer.averaged_gradients.values() for one in group])
    if stage == 3:
        found["masters"] = sizes(optimizer.fp32_partitioned_groups_flat)
        found["gradients, own share"] = sizes([optimizer.grad_partitions_flat_buffer])
        (bucket,) = optimizer.ipg_buckets.values()
        found["bucket of gradients"] = sizes([bucket.buffer])
    return found


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_arithmetic_is_what_deepspeed_holds(stage: int):
    expected = state_bytes(NUM_WEIGHTS, 0, replace(SETTINGS, zero_stage=stage), 1)
    with stepped(zero_stage=stage) as engine:
        found = held_by(engine, stage)
    assert set(found) <= set(expected)
    for kind, num_bytes in found.items():
        assert num_bytes == pytest.approx(expected[kind].device, rel=0.01), kind  # paddings


@pytest.mark.parametrize("stage", [1, 2])
def test_a_bucket_is_there_during_the_backward_pass(stage: int):
    with stepped(zero_stage=stage) as engine:
        optimizer, seen = engine.engine.optimizer, []
        engine.update(1e-3)
        loss, _ = engine.forward(torch.ones(BATCH_SIZE, 8))
        (bucket,) = optimizer.ipg_buckets.values()
        reduce = optimizer.reduce_ipg_grads
        optimizer.reduce_ipg_grads = lambda *given, **named: (
            seen.append(sizes(bucket.buffer)) or reduce(*given, **named)
        )
        engine.backward(loss)
        assert max(seen) == state_bytes(NUM_WEIGHTS, 0, SETTINGS, 1)["bucket of gradients"].device


def test_what_is_offloaded_is_counted_in_the_hosts_memory():
    settings = replace(SETTINGS, zero_stage=3, offload="parameters")
    kept = state_bytes(1000, 0, settings, 4)
    assert kept["weights"] == kept["masters"] == kept["gradients, own share"] == Kept(0, 1000)
    assert kept["optimizer"] == Kept(0, 2000)
    kept = state_bytes(1000, 0, replace(settings, offload="optimizer"), 4)
    assert (kept["weights"], kept["masters"]) == (Kept(1000), Kept(0, 1000))


def test_stages_cut_more_and_more_among_the_processes():
    kept = [state_bytes(10**10, 0, replace(SETTINGS, zero_stage=stage), 100) for stage in (0, 1, 2, 3)]
    gb = [{kind: one.device / 1e9 for kind, one in each.items()} for each in kept]
    assert gb[0] == {"weights": 40, "gradients": 40, "optimizer": 80}
    shares = {"gradients, own share": 0.4, "bucket of gradients": 2, "masters": 0.4, "optimizer": 0.8}
    assert gb[1] == shares | {"weights": 40, "gradients": 40}
    assert gb[2] == shares | {"weights": 40}
    assert gb[3] == shares | {"weights": 0.4, "gathered weights, at most": 4}
    assert kept[1]["bucket of gradients"].device == 4 * BUCKET_ELEMENTS


def test_matrices_are_cut_among_those_who_share_them_and_all_else_among_the_others():
    kept = state_bytes(1000, 800, replace(SETTINGS, zero_stage=1, tensor_parallel=4), 8)
    assert kept["weights"].device == 4 * (200 + 800 // 4)
    assert kept["masters"].device == 4 * (200 + 800 // 4) // 2
    assert kept["optimizer"].device == 2 * kept["masters"].device


def test_muon_keeps_one_number_for_each_hidden_weight_and_adam_two():
    adam = state_bytes(100, 60, replace(SETTINGS, zero_stage=0), 1)["optimizer"].device
    muon = state_bytes(100, 60, replace(SETTINGS, zero_stage=0, optimizer="muon"), 1)["optimizer"].device
    assert (adam, muon) == (800, 4 * (60 + 2 * 40))


def kept_by(module: nn.Module, *given: Any) -> int:
    activations = Activations()
    with activations.counted():
        module(*given)
    return activations.num_bytes


def test_activations_are_what_the_backward_pass_needs_without_the_weights():
    x = torch.randn(10, 8, requires_grad=True)
    net = nn.Sequential(nn.Linear(8, 6), nn.Sigmoid(), nn.Linear(6, 4))
    # The input of the first layer, and what the sigmoid gave, which the last layer keeps too.
    assert kept_by(net, x) == 4 * (10 * 8 + 10 * 6)
    with torch.no_grad():
        assert kept_by(net, x) == 0


def test_counting_leaves_the_gradient_and_no_memory_behind():
    net = nn.Sequential(nn.Linear(8, 6), nn.Sigmoid(), nn.Linear(6, 4))
    x = torch.randn(10, 8)
    net(x).sum().backward()
    expected = [weight.grad.clone() for weight in net.parameters() if weight.grad is not None]
    net.zero_grad()
    kept = []
    net[1].register_forward_hook(lambda module, given, made: kept.append(weakref.ref(made)))
    gc.disable()  # what only the collector could free stays
    activations = Activations()
    with activations.counted():
        loss = net(x).sum()
    loss.backward()
    found = [weight.grad.clone() for weight in net.parameters() if weight.grad is not None]
    del loss
    assert [reference() for reference in kept] == [None]
    gc.enable()
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_recomputing_keeps_only_what_enters_a_block():
    block, x = Block(32, 2), torch.randn(2, 12, 32, requires_grad=True)
    given = (x, rotary_turns(torch.zeros(12), torch.rand(12, 2), 16), None, None)
    all_kept = kept_by(block, *given)
    block.recompute = True
    assert 4 * x.numel() <= kept_by(block, *given) < all_kept / 5


def test_the_peak_of_a_process_is_at_least_what_it_holds():
    held = torch.ones(30_000_000)
    assert peak_bytes(torch.device("cpu")) > 4 * len(held)
