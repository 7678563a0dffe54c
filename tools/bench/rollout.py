"""Measures cached rollouts against uncached ones and a decode code by code, and whether a frame's cost stays flat."""

import copy
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tools.bench import machine, report
from tools.bench.elapsed import forget_peak, peak_bytes
from tools.bench.peers.decoding import RasterModel, Uncached
from tools.bench.race import Finding, Race, Work, take_turns, with_fastest
from tools.bench.roofline import num_trained
from tools.bench.settings import RolloutBenchSettings
from tools.bench.streams import line_of, print_tables, write
from tools.bench.trace import print_trace
from tools.bench.train import compiler_there
from tools.bench.untrained import build_model, random_codes
from worldmodel.light_weights import lighten
from worldmodel.model import WorldModel
from worldmodel.rollouts.next_frame import draw_numbers, imagine_frame
from worldmodel.rollouts.repeated import Repeat
from worldmodel.rollouts.rollout import roll_out, roll_out_anew
from worldmodel.settings import SamplingSettings, Weights

DRAWN = SamplingSettings(moved_scales=0)
SAME_FRAMES = 8  # whose codes are compared
PLAIN, COMPILED = "ours as it is", "ours compiled"
PART_FRAMES = 4  # between which contenders take turns
Roller = Callable[[WorldModel, Tensor, torch.Generator], Iterator[Tensor]]


@torch.inference_mode()
def run(settings: RolloutBenchSettings) -> None:
    """Measures, prints tables, and writes all numbers to a file.

    Raises:
        UserError: there is no pyramid of so many codes.
    """
    if settings.quick:
        settings = dataclasses.replace(settings, codes=[85], horizon=8, rounds=2, late_frame=40)
    torch.set_num_threads(1)
    described = machine.describe()
    print("\n".join(f"{name}: {value}" for name, value in described.items()), flush=True)
    races: list[Race] = []
    findings: list[Finding] = []
    for num_codes in settings.codes:
        model = build_model(num_codes, settings.dim, settings.depth, window_frames=settings.window_frames)
        findings += [same_codes(model, settings), *flatness(model, settings)]
        if settings.trace and not races:
            trace_frame(model, settings)
        rollers = dict(ROLLERS)
        if settings.compile and compiler_there(torch.device("cpu")):
            rollers[COMPILED] = partial(cached, how=Repeat(compiled=True))
            findings.append(compile_time(rollers[COMPILED], model, settings))
        races.append(race_of(model, rollers, settings))
        print("\n".join(line_of(result) for result in (races[-1], *findings[-4:])), flush=True)
    described["load at the end"] = machine.load()
    verdicts = report.judge(races, findings)
    print_tables(races, findings, verdicts)
    output = write("rollout", settings, Path(settings.folder).expanduser(), described, races, findings, verdicts)
    print(f"all numbers: {output}")


def heard(model: WorldModel, prompt: Tensor) -> Tensor:
    """Whether clips have sound: where the model has codes of it."""
    return torch.full((len(prompt),), len(model.decoder.quantizers) > 1, device=prompt.device)


def cached(
    model: WorldModel, prompt: Tensor, generator: torch.Generator, how: Repeat | None = None
) -> Iterator[Tensor]:
    """Ours; `how` frames are repeated, if they are."""
    return roll_out(model, prompt, heard(model, prompt), DRAWN, generator, how=how)


def states_anew(model: WorldModel, prompt: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """The trunk reads all frames again for every new one; the decoder keeps the scales of its frame."""
    return roll_out_anew(model, prompt, heard(model, prompt), DRAWN, generator)


def uncached(model: WorldModel, prompt: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """Nothing is kept."""
    frames = prompt
    while True:
        state = torch.empty(1, 0, model.settings.trunk.dim)  # is computed anew for every scale
        numbers = draw_numbers(prompt[:, -1], generator)
        codes = imagine_frame(Uncached(model, frames, heard(model, prompt)), state, frames[:, -1], DRAWN, numbers)
        yield codes
        frames = torch.cat((frames, codes[:, None]), 1)


def raster(
    model: WorldModel, prompt: Tensor, generator: torch.Generator, how: Repeat | None = None
) -> Iterator[Tensor]:
    """The trunk as ours, the decoder code by code."""
    return roll_out(RasterModel(model), prompt, heard(model, prompt), DRAWN, generator, how=how)


ROLLERS: dict[str, Roller] = {PLAIN: cached, "uncached": uncached, "states anew": states_anew, "raster": raster}


def same_codes(model: WorldModel, settings: RolloutBenchSettings) -> Finding:
    """Whoever imagines something else is not in the race; a decode code by code has no bidirectional scales."""
    results = {}
    for name in (PLAIN, "uncached", "states anew"):
        prompt = random_codes(1, settings.context_frames, model.num_codes)
        frames = ROLLERS[name](model, prompt, torch.Generator().manual_seed(0))
        results[name] = torch.stack(list(islice(frames, 4)), 1)
    for name, codes in results.items():
        assert torch.equal(codes, results[PLAIN]), f"{name} imagines other codes"
    note = "codes of 4 frames with the same seed that differ from the uncached ones"
    return Finding("rollout: same codes", f"{model.num_codes} codes", "ours", 0, "codes", note)


def race_of(model: WorldModel, rollers: Mapping[str, Roller], settings: RolloutBenchSettings) -> Race:
    """Rollouts of the same length from the same prompt; reading the prompt is a part of them."""

    def work(roll: Roller, model: WorldModel) -> Work:
        prompt = random_codes(1, settings.context_frames, model.num_codes)
        frames = roll(model, prompt, torch.Generator().manual_seed(0))
        for _ in range(0, settings.horizon, PART_FRAMES):
            yield sum(1 for _ in islice(frames, PART_FRAMES))

    contenders = {name: (roll, model) for name, roll in rollers.items()}
    contenders |= {weights: (cached, lightened(model, weights)) for weights in settings.weights}
    runners = {name: lambda _, given=given: work(*given) for name, given in contenders.items()}
    costs, form = with_fastest(take_turns(runners, settings.rounds), (PLAIN, COMPILED))
    name = f"{settings.context_frames} + {settings.horizon} frames, {num_trained(model) / 1e6:.1f}M parameters"
    return Race(f"rollout: {model.num_codes} codes", name, "frames", costs, {"ours": form})


def lightened(model: WorldModel, weights: Weights) -> WorldModel:
    """A copy with light weights."""
    light = copy.deepcopy(model)
    lighten(light.blocks, weights)
    return light


def compile_time(roll: Roller, model: WorldModel, settings: RolloutBenchSettings) -> Finding:
    """What compiling takes, and whether compiled frames have the codes of the others."""
    length = settings.window_frames + SAME_FRAMES
    one, other = (
        by(model, random_codes(1, settings.context_frames, model.num_codes), torch.Generator().manual_seed(0))
        for by in (roll, cached)
    )
    begun = time.perf_counter()
    frames = list(islice(one, length))
    seconds = time.perf_counter() - begun
    differ = sum(int((frame != codes).sum()) for frame, codes in zip(frames, other, strict=False))
    note = f"elapsed, with {length} frames, of whose codes {differ} differ; less if code is there from earlier"
    return Finding("rollout: compile time", f"{model.num_codes} codes", COMPILED, seconds, "s", note)


def flatness(model: WorldModel, settings: RolloutBenchSettings) -> list[Finding]:
    """What frame 1000 costs, and the memory that is held then, against frame 10; both rollouts go on in turns."""
    rollers, peaks = {}, {}
    for name, frame in (("early", 10), ("late", settings.late_frame)):
        prompt = random_codes(1, settings.context_frames, model.num_codes)
        rollers[name] = cached(model, prompt, torch.Generator().manual_seed(0))
        forget_peak()
        for _ in islice(rollers[name], frame):
            pass
        peaks[name] = peak_bytes()

    def work(name: str) -> Work:
        for _ in range(4):
            yield sum(1 for _ in islice(rollers[name], PART_FRAMES))

    costs = take_turns({name: lambda _, name=name: work(name) for name in rollers}, settings.rounds)
    ratio = float(np.median(np.array(costs["late"]) / np.array(costs["early"])))
    subject, spent = f"{model.num_codes} codes", {name: 1e3 * np.median(cost) for name, cost in costs.items()}
    note = f"CPU-milliseconds a frame: {spent['early']:.1f}, from frame {settings.late_frame} on {spent['late']:.1f}"
    memory = f"{peaks['early'] / 2**20:.0f} MiB up to frame 10, {peaks['late'] / 2**20:.0f} MiB up to the last"
    return [
        Finding("rollout: flat cost", subject, "ours", ratio, "x", note),
        Finding("rollout: flat memory", subject, "ours", peaks["late"] / peaks["early"], "x", memory),
    ]


def trace_frame(model: WorldModel, settings: RolloutBenchSettings) -> None:
    """Writes and prints where the time of one imagined frame of ours goes."""
    frames = cached(model, random_codes(1, settings.context_frames, model.num_codes), torch.Generator())
    next(frames)  # with the reading of the prompt
    what = f"one frame of ours, {model.num_codes} codes"
    print_trace(lambda: next(frames), settings.trace, torch.device("cpu"), what)
