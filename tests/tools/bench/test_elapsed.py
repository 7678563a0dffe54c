from collections.abc import Callable

import pytest
import torch

from tools.bench.elapsed import (
    Contender,
    forget_peak,
    is_out_of_memory,
    passed,
    peak_bytes,
    peak_memory,
    race_on,
    seconds_of,
    that_fit,
)

CPU = torch.device("cpu")


def failing(error: BaseException) -> Callable[[], None]:
    def step() -> None:
        raise error

    return step


def test_contenders_take_turns_and_their_time_is_that_of_a_unit():
    ran: list[str] = []
    contenders = {name: Contender(lambda name=name: ran.append(name), 5) for name in "ab"}
    costs = race_on(CPU, contenders, 2, 2)
    assert "".join(ran) == "ababbaba"
    assert {name: len(found) for name, found in costs.items()} == {"a": 2, "b": 2}
    assert all(cost > 0 for found in costs.values() for cost in found)


def test_elapsed_time_is_not_negative_and_the_step_has_run():
    ran: list[int] = []
    assert seconds_of(lambda: ran.append(1), CPU) >= 0
    assert ran == [1]


def test_a_gpu_is_waited_for_before_and_after_and_asked_for_its_own_peak(monkeypatch: pytest.MonkeyPatch):
    gpu, calls = torch.device("cuda"), []
    for name in ("synchronize", "reset_peak_memory_stats", "max_memory_allocated", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *given, name=name: calls.append((name, *given)) or 7)
    seconds_of(lambda: calls.append("step"), gpu)
    assert calls == [("synchronize", gpu), "step", ("synchronize", gpu)]
    calls.clear()
    assert peak_memory(lambda: calls.append("step"), gpu) == 7
    assert calls == [("reset_peak_memory_stats", gpu), "step", ("synchronize", gpu), ("max_memory_allocated", gpu)]
    calls.clear()
    assert not passed(failing(torch.cuda.OutOfMemoryError()), gpu, "a step")
    assert calls == [("empty_cache",)]


def test_who_does_not_fit_the_memory_is_named_and_passed_over(capsys: pytest.CaptureFixture[str]):
    contenders = {
        "small": Contender(lambda: None, 1),
        "of a GPU": Contender(failing(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")), 1),
        "real": Contender(lambda: torch.empty(2**55), 1),
    }
    fitting, peaks = that_fit(CPU, contenders, "train, huge")
    assert list(fitting) == list(peaks) == ["small"]
    assert peaks["small"] > 2**20
    assert capsys.readouterr().err.splitlines() == [
        "train, huge: of a GPU does not fit the memory of cpu: passed over",
        "train, huge: real does not fit the memory of cpu: passed over",
    ]


def test_any_other_error_is_an_error():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        passed(lambda: torch.ones(2, 3) @ torch.ones(2, 3), CPU, "a product")
    assert passed(lambda: None, CPU, "nothing")


def test_errors_of_memory_are_told_from_others():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert not is_out_of_memory(RuntimeError("no kernel image is available"))
    assert not is_out_of_memory(ValueError("memory"))


def test_the_peak_is_that_of_a_step_and_begins_anew():
    torch.ones(2**24).sum()
    before = peak_bytes()
    forget_peak()
    assert peak_bytes() < before
    assert peak_memory(lambda: torch.ones(2**24).sum(), CPU) >= peak_bytes() > 2**26
