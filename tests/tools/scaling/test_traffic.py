import pytest
import torch
from torch import nn

from tools.scaling.traffic import Model, Sent, of_sequence, of_stage, of_tensor
from worldmodel.blocks import Block
from worldmodel.training.memory import LIVE_ELEMENTS

GB = 10**9 // 4  # weights that take a gigabyte


def whole_bytes(sent: list[Sent]) -> dict[str, float]:
    return {one.kind: one.num_bytes / 1e9 for one in sent}


@pytest.mark.parametrize("dim", [256, 1024, 2048])
def test_weights_are_those_of_the_blocks(dim: int):
    with torch.device("meta"):
        blocks = nn.ModuleList(Block(dim, dim // 128) for _ in range(3))
    matrices = sum(weight.numel() for weight in blocks.parameters() if weight.ndim == 2)
    assert Model("", dim, 3).num_elements == matrices


def test_a_process_sends_what_the_ring_algorithms_send():
    assert Sent("all_reduce", 8.0, 4).by_process == 2 * 3 / 4 * 8
    assert Sent("all_gather", 8.0, 4).by_process == Sent("reduce_scatter", 8.0, 4).by_process == 6
    assert Sent("all_to_all", 8.0, 4).by_process == 6
    assert Sent("all_reduce", 8.0, 1).by_process == 0


def test_within_a_node_all_is_sent_over_nvlink():
    for kind in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all"):
        one = Sent(kind, 8.0, 8)
        assert one.by_links == (one.by_process, 0)


def test_between_nodes_every_process_sends_its_share_of_the_rest():
    nvlink, network = Sent("all_gather", 800.0, 32).by_links
    assert nvlink == 800 * 7 / 8
    assert network == 800 / 8 * 3 / 4
    assert Sent("all_reduce", 800.0, 32).by_links == (2 * nvlink, 2 * network)
    # The parts of an all-to-all have each one receiver, most of which are in other nodes.
    assert Sent("all_to_all", 32.0, 32).by_links == (7, 24)


def test_stages_send_what_deepspeed_does():
    assert whole_bytes(of_stage(0, GB, 4)) == {"all_reduce": 1}
    assert whole_bytes(of_stage(1, GB, 4)) == {"all_reduce": 1, "all_gather": 1}
    assert whole_bytes(of_stage(2, GB, 4)) == {"all_reduce": 1, "all_gather": 1}
    assert whole_bytes(of_stage(3, GB, 4)) == {"all_gather": 1, "reduce_scatter": 1}


def test_later_stages_send_in_every_micro_batch():
    whole = [whole_bytes(of_stage(stage, GB, 4, accumulate=3)) for stage in (0, 1, 2, 3)]
    assert whole[0] == {"all_reduce": 1}
    assert whole[1] == {"all_reduce": 1, "all_gather": 1}
    assert whole[2] == {"all_reduce": 3, "all_gather": 1}
    assert whole[3] == {"all_gather": 3, "reduce_scatter": 3}


def test_weights_that_stage_3_does_not_keep_are_gathered_twice():
    kept = 4 * LIVE_ELEMENTS / 2 / 1e9
    assert whole_bytes(of_stage(3, 10 * GB, 4))["all_gather"] == 10 + 10 - kept
    assert whole_bytes(of_stage(3, GB, 4, kept_elements=0))["all_gather"] == 2


def test_sharing_clips_sends_tokens_for_heads_and_back():
    assert of_sequence(Model("", 64, 3), 1, 100) == []
    exchanged, gathered, scattered = of_sequence(Model("", 64, 3), 2, num_tokens=100)
    # Queries, keys, values and results of 50 tokens in three blocks, forwards and backwards.
    assert (exchanged.kind, exchanged.num_bytes) == ("all_to_all", 4 * 50 * 64 * 3 * 2 * 4)
    assert gathered.num_bytes == scattered.num_bytes == 4 * 100 * 64
    again = of_sequence(Model("", 64, 3), 2, 100, recompute=True, value_bytes=2)[0]
    assert again.num_bytes == exchanged.num_bytes / 2 * 3 / 2


def test_processes_that_are_no_neighbours_meet_fewer_of_their_group_in_a_node():
    nvlink, network = Sent("all_gather", 800.0, 8, stride=4).by_links
    assert nvlink == 800 / 2
    assert network == 800 / 2 * 3 / 4
    assert Sent("all_gather", 800.0, 4, stride=8).by_links == (0, 800 * 3 / 4)
    assert {one.stride for stage in (0, 1, 2, 3) for one in of_stage(stage, GB, 4, stride=2)} == {2}


def test_sharing_matrices_adds_up_what_leaves_and_the_gradients_of_what_enters():
    assert of_tensor(Model("", 64, 3), 1, 100) == []
    (summed,) = of_tensor(Model("", 64, 3), 2, 100)
    # Of 100 tokens in three blocks, twice forwards and three times backwards.
    assert (summed.kind, summed.num_bytes, summed.size) == ("all_reduce", (2 + 3) * 100 * 64 * 3 * 4, 2)
    (again,) = of_tensor(Model("", 64, 3), 2, 100, recompute=True, value_bytes=2)
    assert again.num_bytes == (3 * 2 + 3 * 4) * 100 * 64 * 3
