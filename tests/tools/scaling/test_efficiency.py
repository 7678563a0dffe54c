from dataclasses import replace

import pytest

from tools.scaling.efficiency import LARGEST, MODELS, best, measured_block_bytes, memory_of, step_of, steps_of
from tools.scaling.settings import Machine, Work
from tools.scaling.traffic import of_stage

MACHINE, WORK = Machine(), Work()
SMALL, MIDDLE, LARGE = MODELS


def test_the_models_have_the_weights_that_their_names_say():
    sizes = {model.name: model.num_elements / 1e9 for model in MODELS}
    assert sizes == {
        "300M": pytest.approx(0.3, rel=0.1),
        "1.3B": pytest.approx(1.3, rel=0.1),
        "7B": pytest.approx(7, rel=0.1),
    }


def test_arithmetic_takes_six_operations_for_each_weight_and_token_and_eight_if_blocks_run_again():
    work = replace(WORK, recompute=False)
    step = step_of(SMALL, 0, 8, work, MACHINE)
    assert step.compute_seconds == pytest.approx(6 * SMALL.num_elements * work.tokens / (0.4 * 989e12))
    again = step_of(SMALL, 0, 8, replace(work, recompute=True), MACHINE)
    assert again.compute_seconds == pytest.approx(step.compute_seconds * 8 / 6)


def test_a_step_is_arithmetic_and_what_of_the_sending_is_not_hidden():
    plain = step_of(MIDDLE, 1, 64, WORK, MACHINE)
    expected = plain.nvlink_bytes / 300e9 + plain.network_bytes / 40e9
    assert plain.send_seconds == pytest.approx(expected)
    assert plain.seconds == pytest.approx(plain.compute_seconds + expected)
    half = step_of(MIDDLE, 1, 64, WORK, replace(MACHINE, overlap=0.5))
    assert half.seconds == pytest.approx(plain.compute_seconds + expected / 2)
    # No more is hidden than there is arithmetic to hide it.
    slow = replace(MACHINE, overlap=1.0, network_gigabytes=0.001)
    hidden = step_of(MIDDLE, 1, 64, WORK, slow)
    assert hidden.seconds == pytest.approx(hidden.send_seconds)
    assert plain.efficiency < half.efficiency < 1


def test_bytes_are_those_of_the_stage_and_of_sharing():
    step = step_of(SMALL, 3, 64, WORK, MACHINE)
    links = [one.by_links for one in of_stage(3, SMALL.num_elements, 64)]
    assert (step.nvlink_bytes, step.network_bytes) == tuple(map(sum, zip(*links, strict=True)))
    shared = step_of(SMALL, 3, 64, replace(WORK, clips=0.25), MACHINE, sequence_parallel=4)
    assert shared.nvlink_bytes > step.nvlink_bytes
    assert shared.network_bytes == step.network_bytes  # those who share are in one node


def test_memory_falls_with_the_stage_and_with_what_is_recomputed():
    needed = [memory_of(LARGE, stage, 64, WORK) for stage in (0, 1, 2, 3)]
    assert needed == sorted(needed, reverse=True)
    assert memory_of(LARGE, 3, 64, replace(WORK, recompute=False)) > 2 * needed[3]
    # What a clip keeps is cut among those who share it.
    whole, half = (memory_of(SMALL, 1, 64, replace(WORK, clips=clips)) for clips in (1.0, 0.5))
    state = memory_of(SMALL, 1, 64, replace(WORK, clips=0.0))
    assert whole - state == pytest.approx(2 * (half - state))


def test_gpus_that_share_matrices_hold_a_part_of_them_and_all_that_enters_a_block():
    alone, shared = (memory_of(LARGEST, 3, 64, replace(WORK, clips=1 / size), size) for size in (1, 4))
    # Three quarters of the copy in bf16, and of what heads and hidden channels keep.
    saved = 2 * LARGEST.num_elements + WORK.cut_bytes * LARGEST.dim * WORK.frames * WORK.frame_tokens
    # ZeRO cuts the state as small either way.
    assert alone - shared == pytest.approx(0.75 * saved, rel=1e-3)
    apart, sharing = (step_of(MIDDLE, 1, 64, replace(WORK, clips=1 / size), MACHINE, 1, size) for size in (1, 2))
    assert sharing.compute_seconds == pytest.approx(apart.compute_seconds / 2)
    assert sharing.efficiency < apart.efficiency


def test_what_processes_that_share_matrices_divide_was_measured():
    found = 2 * (measured_block_bytes() - measured_block_bytes(tensor_parallel=2))
    assert found == pytest.approx(Work().cut_bytes, rel=0.1)


def test_a_block_keeps_as_much_per_token_and_channel_whatever_its_size():
    assert measured_block_bytes() == pytest.approx(measured_block_bytes(384, 64), rel=0.1)
    assert measured_block_bytes() == pytest.approx(Work().block_bytes, rel=0.1)


def test_the_best_stage_is_the_fastest_that_fits():
    steps = steps_of(LARGE, (0, 1, 2, 3), 64, WORK, MACHINE)
    assert best(steps, replace(MACHINE, device_gigabytes=1000)) == 0
    # Stages 0 and 3 of a small model send the same; the lower one is taken.
    assert best(steps_of(SMALL, (3, 0), 64, WORK, MACHINE), MACHINE) == 0
    least = min(step.device_bytes for step in steps.values())
    assert best(steps, replace(MACHINE, device_gigabytes=0.99 * least / 1e9)) is None
    assert best(steps, replace(MACHINE, device_gigabytes=1.0001 * least / 1e9)) == 3
