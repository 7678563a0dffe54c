import pytest
import torch

from streams.errors import UserError
from tools.bench.untrained import (
    batch_of,
    build_model,
    grids_of,
    matmul_flops_per_second,
    random_codes,
    repeated,
    settings_of,
    step_flops,
    with_attention,
)
from worldmodel.objective import WorldObjective
from worldmodel.settings import HeadSettings


def test_a_pyramid_of_85_codes_has_four_squares_and_one_of_86_is_an_error():
    assert grids_of(85) == ((1, 1), (2, 2), (4, 4), (8, 8))
    with pytest.raises(UserError, match="codes=86: no pyramid of squares; give 5, 21, 85, 341 or 1365"):
        grids_of(86)


def test_the_same_sizes_have_the_same_weights_whatever_the_attention():
    one = build_model(21, 32, 1)
    for other in (build_model(21, 32, 1, attention="dense"), with_attention(one, "dense")):
        assert other.trunk.blocks[0].attention.backend == other.decoder.blocks[0].attention.backend == "dense"
        for weight, same in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(weight, same)
    assert one.trunk.blocks[0].attention.backend == "sdpa"


def test_a_step_of_a_wider_model_needs_more_operations_than_its_matrices_alone():
    batch = batch_of(random_codes(1, 4, 21))
    flops = []
    for dim in (32, 64):
        model = build_model(21, dim, 1)
        objective = WorldObjective(
            model, HeadSettings(flow=0.0, speed=0.0, arrow_of_time=0.0, correspondence=0.0)
        ).train()
        flops.append(step_flops(objective, batch))
        assert all(weight.grad is None for weight in objective.parameters())
        # Query, key, value, out and the gated three of 32-rounded width, for every token of the trunk, three times.
        matrices = sum(weight.numel() for weight in model.trunk.blocks[0].parameters() if weight.ndim == 2)
        assert flops[-1] > 3 * 2 * matrices * 4 * model.trunk.num_tokens
    assert flops[1] > 1.5 * flops[0]


def test_the_peak_is_a_number_of_operations_per_second():
    assert matmul_flops_per_second(num_products=1) > 1e6


def test_a_repeated_step_tells_its_units():
    calls: list[int] = []
    assert list(repeated(lambda: calls.append(1), 5, 3)) == [5, 5, 5]
    assert len(calls) == 3


def test_a_size_is_the_model_of_its_configuration():
    assert [settings_of(name).depth for name in ("small", "medium", "large", "huge", "tiny")] == [4, 8, 16, 26, 1]
    with pytest.raises(UserError, match="sizes=giant: no such model; give from_videos, huge, large"):
        settings_of("giant")
