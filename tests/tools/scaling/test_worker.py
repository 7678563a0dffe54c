import pytest

from tools.scaling.worker import BATCH, CASES, NUM_FRAMES, count


def test_a_process_alone_sends_nothing():
    found = count("stage 1")
    assert found["sent"] == 0
    assert found["num_tokens"] == BATCH * NUM_FRAMES * 4
    assert found["num_elements"] > 10**6
    assert (found["num_items"], found["state_tokens"]) == (BATCH * 4, 4)


def test_every_stage_is_counted():
    assert {case["zero_stage"] for case in CASES.values()} == {0, 1, 2, 3}
    for name in ("sequence_parallel", "tensor_parallel"):
        assert any(case.get(name) == 2 for case in CASES.values())


def test_a_case_that_needs_two_processes_is_refused_with_one():
    with pytest.raises(ValueError, match="sequence_parallel=2 must divide the 1 processes"):
        count("stage 1, a clip shared by 2")
