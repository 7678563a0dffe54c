import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from tests.worldmodel.tiny import MODEL, random_codes, tiny_model, yes
from worldmodel.model import WorldModel
from worldmodel.rollouts import repeated
from worldmodel.rollouts.moment import Moment
from worldmodel.rollouts.next_frame import draw_numbers
from worldmodel.rollouts.repeated import Repeat, Repeated
from worldmodel.rollouts.rollout import roll_out
from worldmodel.settings import SamplingSettings

ROOT = Path(__file__).parents[3]
GREEDY, DRAWN = SamplingSettings(temperature=[0.0]), SamplingSettings(moved_scales=0)
HORIZON = 4 * MODEL.window_frames
SAMPLINGS = {
    "drawn": DRAWN,
    "moved together": SamplingSettings(),
    "likeliest": GREEDY,
    "restricted": SamplingSettings([0.8], [5], [0.9], 0, min_p=[0.01]),
    "guided": SamplingSettings(guidance=1.5, moved_scales=0),
    "preview": SamplingSettings(preview_scales=2, moved_scales=0),
}


class Recording:
    """What a CUDA graph does, on a processor: the operations of one call, on the same memory, without Python."""

    def __init__(self, advance: Callable[[], None]) -> None:
        moment = advance.__self__.moment  # type: ignore[attr-defined]
        before = [(tensor, tensor.clone()) for tensor in memory_of(moment)]
        self.graph = make_fx(lambda: advance() or [])()
        for tensor, was in before:  # to trace is to run; to record is not
            tensor.copy_(was)

    def replay(self) -> None:
        self.graph()


def memory_of(moment: Moment) -> list[Tensor]:
    return [*repeated.changing(moment), *(x for layer in moment.cache.trunk.layers for x in layer)]


def frames_of(model: WorldModel, sampling: SamplingSettings, how: Repeat | None, prompt_frames: int = 4) -> Tensor:
    prompt = random_codes(2, prompt_frames, model.num_codes)
    frames = roll_out(model, prompt, torch.tensor([True, False]), sampling, torch.Generator().manual_seed(5), 2, how)
    return torch.stack(list(islice(frames, HORIZON)), 1)


@pytest.mark.parametrize(("name", "recorded"), [*((name, True) for name in SAMPLINGS), ("drawn", False)])
def test_repeated_frames_are_those_of_a_rollout(name: str, recorded: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(repeated, "recorded", Recording)
    model = tiny_model(sound=True)
    found, expected = (frames_of(model, SAMPLINGS[name], how) for how in (Repeat(recorded=recorded), None))
    assert torch.equal(found, expected)
    assert (found[:, 1:] != found[:, :-1]).any(-1).float().mean() > 0.5  # else a frozen one would prove nothing


@pytest.mark.parametrize("prompt_frames", [1, 2, 3, 7])
@pytest.mark.parametrize("factorised", [False, True])
def test_a_rollout_is_repeated_from_the_frame_that_fills_the_window(
    prompt_frames: int, factorised: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(repeated, "recorded", Recording)
    model, steps = tiny_model(replace(MODEL, factorised=factorised)), []
    expected = frames_of(model, DRAWN, None, prompt_frames)
    step = model.step
    monkeypatch.setattr(model, "step", lambda *given: steps.append(1) or step(*given))
    assert torch.equal(frames_of(model, DRAWN, Repeat(recorded=True), prompt_frames), expected)
    # Frames up to a full window and one more go step by step; the next two are the first of their kind and recorded.
    assert len(steps) == max(MODEL.window_frames - prompt_frames, 0) + 1 + 2


class NothingIsReadBack(TorchDispatchMode):
    """Fails where Python would wait for a device to see a number."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", SAMPLINGS)
@torch.no_grad()
def test_a_frame_stays_where_it_is_and_nothing_of_it_is_read_back(name: str):
    model = tiny_model(sound=True)
    moment = Moment.after(model, random_codes(2, 4, model.num_codes), yes(2))
    frames = Repeated(model, moment, SAMPLINGS[name], Repeat())
    places = [tensor.data_ptr() for tensor in memory_of(frames.moment)]
    numbers = draw_numbers(moment.codes)
    frames(numbers)
    with NothingIsReadBack():
        frames(numbers)
    assert [tensor.data_ptr() for tensor in memory_of(frames.moment)] == places


@torch.no_grad()
def test_frames_that_were_given_out_do_not_change():
    model = tiny_model()
    moment = Moment.after(model, random_codes(1, 4, model.num_codes), yes(1))
    start = moment.codes.clone()
    frames = Repeated(model, moment, DRAWN, Repeat())
    first = frames(draw_numbers(moment.codes))
    before = first.clone()
    frames(draw_numbers(moment.codes))
    assert torch.equal(first, before)
    assert torch.equal(moment.codes, start)


def test_compiled_frames_are_those_of_a_rollout_and_no_model_is_taken_for_another(tmp_path: Path):
    # In a process of its own: checked shapes cannot be compiled.
    command = [sys.executable, "-W", "error::UserWarning", "-m", "tests.worldmodel.rollouts.compiled_rollout"]
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {"equal": True, "alive": True, "graphs": 1, "forms": 10}


def test_a_frame_that_no_code_can_be_made_of_goes_on_without_and_that_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def failing(*given: Any) -> None:
        raise RuntimeError("C++ compile error\n/tmp/x.cpp: error: no space left on device")

    monkeypatch.setattr(repeated, "compiled_advance", lambda on_cpu: failing)
    model = tiny_model()
    assert torch.equal(frames_of(model, DRAWN, Repeat(compiled=True)), frames_of(model, DRAWN, None))
    assert capsys.readouterr().err.endswith("frames are not compiled: /tmp/x.cpp: error: no space left on device\n")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a GPU")
@pytest.mark.parametrize("how", [Repeat(recorded=True), Repeat(True, True)], ids=["recorded", "compiled too"])
def test_a_cuda_graph_imagines_what_a_rollout_does(how: Repeat):
    model = tiny_model(sound=True).cuda()
    prompt, generator = random_codes(2, 4, model.num_codes).cuda(), torch.Generator("cuda")
    with torch.inference_mode():
        one, other = (
            torch.stack(
                list(islice(roll_out(model, prompt, yes(2).cuda(), DRAWN, generator.manual_seed(5), 1, by), 30))
            )
            for by in (how, None)
        )
    assert torch.equal(one, other)
