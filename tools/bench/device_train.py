"""Training steps of one size on one device: share of its peak, floors, memory, and against the masked call in eager."""

import dataclasses
import gc
import statistics
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tools.bench.elapsed import Contender, race_on, that_fit
from tools.bench.race import Finding, Race, with_fastest
from tools.bench.roofline import Peaks, num_trained, step_bytes
from tools.bench.settings import DeviceBenchSettings
from tools.bench.trace import print_trace
from tools.bench.train import COMPILED, DENSE, EAGER, NO_HEADS, compiler_there, update
from tools.bench.untrained import batch_of, build_world, quantizer_settings, random_codes, settings_of, step_flops
from worldmodel.attention import Attention, Backend
from worldmodel.cache.latents import CodeBatch
from worldmodel.codecs.quantizer import MultiScaleQuantizer
from worldmodel.objective import WorldObjective

# How far the states of two forms may be apart, of their length: bfloat16 rounds in every layer. A frame too many in
# sight is far above either.
NEAR_STATES = {"fp32": 1e-3, "bf16": 0.1}


@dataclasses.dataclass(frozen=True)
class Form:
    """In which way the same weights are run.

    Attributes:
        attention: what computes it.
        compiled: whether blocks run as compiled code.
    """

    attention: Backend
    compiled: bool


@dataclasses.dataclass(frozen=True)
class Training:
    """A model that all forms train in turn: a second one with its optimizer might not fit beside it."""

    objective: WorldObjective
    optimizer: torch.optim.Optimizer
    batch: CodeBatch
    bf16: bool

    def step(self, form: Form) -> None:
        """One training step in a form."""
        self.become(form)
        update(self.objective, self.optimizer, self.batch, self.bf16)

    def become(self, form: Form) -> None:
        """Runs the model in a form from now on."""
        for module in self.objective.modules():
            if isinstance(module, Attention):
                module.backend = form.attention
        self.objective.compile_blocks(form.compiled)

    def states(self, form: Form) -> torch.Tensor:
        """States of the batch in a form, in fp32."""
        self.become(form)
        with torch.autocast(self.batch.picture.device.type, torch.bfloat16, enabled=self.bf16):
            return self.objective.model.states(self.batch.picture, self.batch.has_sound).detach().float()


def build_training(size: str, settings: DeviceBenchSettings, device: torch.device) -> Training:
    """An untrained model of pictures and a batch of random codes, on the device.

    Raises:
        UserError: there is no such size, or no pyramid of so many codes.
    """
    torch.manual_seed(0)
    model = build_world(settings_of(size), MultiScaleQuantizer(quantizer_settings(settings.num_codes)))
    objective = WorldObjective(model, NO_HEADS).train().to(device)
    weights = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, fused=True)
    batch = batch_of(random_codes(settings.batch, settings.num_frames, settings.num_codes)).to(device)
    return Training(objective, optimizer, batch, settings.precision == "bf16")


def measure_training(
    size: str, settings: DeviceBenchSettings, device: torch.device, peaks: Peaks
) -> Iterator[Race | Finding]:
    """Races and findings of one size; `settings` are resolved, so that nothing in them is auto."""
    with freed(device):
        training = build_training(size, settings, device)
        yield from measure_forms(training, size, settings, peaks)
        del training


@contextmanager
def freed(device: torch.device) -> Iterator[None]:
    """What was let go inside is room on the device behind it."""
    try:
        yield
    finally:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def measure_forms(
    training: Training, size: str, settings: DeviceBenchSettings, peaks: Peaks
) -> Iterator[Race | Finding]:
    """Training steps in every form in turns."""
    device, batch, subject = training.batch.picture.device, training.batch, f"train, {size}"
    assert settings.attention != "auto"
    forms = {EAGER: Form(settings.attention, False), DENSE: Form("dense", False)}
    if settings.compile and compiler_there(device):
        forms[COMPILED] = Form(settings.attention, True)
    training.become(forms[DENSE])
    flops = flops_of(training)
    units = batch.picture.numel()
    steps = {name: Contender(lambda form=form: training.step(form), units) for name, form in forms.items()}
    steps, memory = that_fit(device, steps, subject)
    if not {EAGER, COMPILED} & steps.keys():
        return
    apart = require_near(training, {name: forms[name] for name in steps}, settings.precision)
    costs, fastest = with_fastest(race_on(device, steps, settings.rounds, settings.steps), (EAGER, COMPILED))
    note = f"{apart:.1e} of their length, the furthest of any form from the first"
    yield Finding("device: same states", size, "ours", apart, "of their length", note)
    yield Race(f"device train, {size}", size, "tokens", costs, {"ours": fastest}, "second")
    yield from describe(training, size, costs["ours"], flops, peaks)
    for name, num_bytes in memory.items():
        yield Finding("device: peak memory", size, name, num_bytes / 2**30, "GiB", "of a training step")
    if settings.trace:
        print_trace(steps[fastest].step, settings.trace, device, f"one training step of {fastest}, {size}")


def flops_of(training: Training) -> int:
    """Operations of a training step, those of the exact mask alone; it must not run in compiled code meanwhile."""
    with torch.no_grad(), torch.autocast(training.batch.picture.device.type, torch.bfloat16, enabled=training.bf16):
        return step_flops(training.objective, training.batch)


def require_near(training: Training, forms: dict[str, Form], precision: str) -> float:
    """Whoever computes something else is not in the race; returns the largest distance of states to the first form's.

    It is measured in their own length.
    """
    states = [training.states(form) for form in forms.values()]
    apart = max(float((other - states[0]).norm() / states[0].norm()) for other in states)
    assert apart <= NEAR_STATES[precision], f"the states differ by {apart:g} of their length"
    return apart


def describe(training: Training, size: str, costs: list[float], flops: int, peaks: Peaks) -> Iterator[Finding]:
    """What a step of ours takes, beside what it would take at best."""
    units, trained = training.batch.picture.numel(), num_trained(training.objective)
    seconds = statistics.median(costs) * units
    spread = (max(costs) - min(costs)) / statistics.median(costs)
    by_flops, by_bytes = peaks.floors(flops, step_bytes(training.objective))
    share = f"{max(by_flops, by_bytes) / seconds:.0%} of the roofline"
    yield Finding("device: parameters", size, "ours", trained / 1e6, "million", "of the model of pictures, trained")
    yield Finding("device: step", size, "ours", 1e3 * seconds, "ms", f"spread {spread:.0%}, {share}")
    yield Finding("device: floor by operations", size, "ours", 1e3 * by_flops, "ms", f"{flops / 1e12:.4g} TFLOP a step")
    yield Finding("device: floor by bytes", size, "ours", 1e3 * by_bytes, "ms", "weights, gradients, AdamW's averages")
    yield Finding(f"device: MFU, {size}", size, "ours", 100 * by_flops / seconds, "%", f"spread {spread:.0%}")
