"""The loop that every objective shares. It knows neither the model nor what a batch is."""

import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from streams.journal import Journal
from worldmodel.errors import CheckpointError, UserError
from worldmodel.settings import TrainingSettings
from worldmodel.training import checkpoint, cluster, flops, hanging, peers, randomness, schedule, signals
from worldmodel.training.checkpoint import Description, Progress
from worldmodel.training.engine import Engine
from worldmodel.training.meter import Meter
from worldmodel.training.report import Report
from worldmodel.training.signals import StopRequest
from worldmodel.training.spikes import Spikes

Preview = Callable[[nn.Module, Report, int], None]


@runtime_checkable
class KnowsShareDone(Protocol):
    """An objective that changes over a run."""

    share_done: float


@runtime_checkable
class TellsHowItGoes(Protocol):
    """An objective with more to say about its metrics than its loss."""

    def in_short(self, means: dict[str, float]) -> str:
        """What of the metrics is shown beside the progress."""
        ...

    def alarms(self, means: dict[str, float]) -> dict[str, str]:
        """What is wrong, in words, by a name that stays while it is."""
        ...


@runtime_checkable
class Batches(Protocol):
    """An endless iterator of batches with its state, as `streams.loader.Loader` is."""

    @property
    def position(self) -> int:
        """Samples consumed over all processes; the whole state."""
        ...

    @property
    def waited_seconds(self) -> float:
        """Time that its user has waited for data."""
        ...

    @property
    def journal(self) -> Journal:
        """What was read so far, in which time, and what failed."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """Itself."""
        ...

    def __next__(self) -> Any:
        """The next batch; it has `.to(device)`."""
        ...

    def close(self) -> None:
        """Ends what runs in the background."""
        ...


class NonFiniteLossError(UserError):
    """The loss or its gradient became infinite or NaN."""


@dataclass(frozen=True)
class Seen:
    """A micro-batch of an update: positions of the data's order that this process read, and their loss."""

    start: int
    stop: int
    loss: Tensor


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        step: updates done.
        position: samples seen.
        interrupted: whether a signal ended it before its last step.
        checkpoint: the last checkpoint.
    """

    step: int
    position: int
    interrupted: bool
    checkpoint: Path


def train(
    objective: nn.Module,
    make_loader: Callable[[int], Batches],
    settings: TrainingSettings,
    batch_size: int,
    run: Path,
    description: Description,
    preview: Preview | None = None,
    resume: bool = False,
    stop: StopRequest | None = None,
    check: Callable[[], None] | None = None,
) -> TrainResult:
    """Trains to the last step, or until it is asked to stop; every process of the run calls it.

    Args:
        objective: module that maps a batch to a scalar loss and scalar metrics by name (NaN where not measured); an
            attribute `share_done` is set before every step to the share of the run that is done, and one that
            `TellsHowItGoes` is heard at every report.
        make_loader: loader of this process's micro-batches that starts at a position of the data's order.
        settings: of the loop.
        batch_size: items of one update over all processes.
        run: folder of the run.
        description: what its checkpoints say about the model.
        preview: shows the objective's work; every process calls it, in evaluation mode and without gradients.
        resume: goes on from the newest checkpoint, also one of another number of processes or another ZeRO stage.
        stop: flag that a signal handler sets.
        check: raises where a run must not be saved; every process calls it before every checkpoint.

    Raises:
        CheckpointError: a checkpoint cannot be saved or resumed, or one is there that was not asked for.
        LostProcessError: another process has ended, or cannot be reached.
        NonFiniteLossError: the loss or the gradient is not finite; no process has made the update.
        ValueError: batch_size does not divide among the processes and micro-batches, or the metrics change their names.
    """
    main = cluster.start().rank == 0
    peers.meet()
    found = checkpoint.choose(run)
    if resume and found is None:
        raise checkpoint.none_complete(run, "restore its files, or start a new run in another folder")
    if found is not None and not resume:
        raise CheckpointError(f"{run} already has checkpoints: resume it, or choose another folder")
    if found is not None:
        checkpoint.load_objective(objective, found, description)
    engine = Engine(objective, settings, batch_size)
    start = Progress()
    randomness.seed(settings.seed, cluster.data_ranks(settings.num_sharing)[0])
    if found is not None:
        start = checkpoint.load(engine, found, settings.seed)
    loader = make_loader(start.position)
    report = Report(run, start.step + 1, main)
    loop = Loop(engine, loader, settings, batch_size, report, stop or StopRequest(), run, start)
    step, last = start.step, found
    signals.follow_launcher(signal.SIGTERM)  # from here on, what is done can be saved
    remedy = peers.advice(str(run))
    watched, missed = hanging.unwatched(lambda: [*peers.states(), remedy]), peers.missed(remedy)
    with closing(loader), closing(report), closing(loop.open_bar(start.step, main)), watched, missed:
        while step < settings.steps and not loop.stopping:
            step += 1
            hanging.alive(settings.hang_seconds, f"step {step}")
            loop.update(step)
            # What follows takes its time, and waits for others no longer than the processes' connections do.
            hanging.rest()
            ending = loop.stopping or step == settings.steps
            if ending or due(step, settings.report_every):
                loop.show(step)
            if preview is not None and not loop.stopping and (ending or due(step, settings.preview_every)):
                loop.preview(preview, step)
            if ending or due(step, settings.checkpoint_every):
                if check is not None:
                    check()
                report.flush()
                spikes = loop.spikes
                progress = Progress(step, loader.position, spikes.num_skipped, tuple(spikes.recent))
                last = checkpoint.save(engine, run, progress, description, settings.keep_checkpoints)
    engine.close()
    assert last is not None, "the last step saves a checkpoint"
    return TrainResult(step, loader.position, step < settings.steps, last)


def due(step: int, every: int) -> bool:
    """Whether something done every so many steps (0 for never) is done now."""
    return every > 0 and step % every == 0


class Loop:
    """The state of a running training.

    Attributes:
        stopping: whether the processes have agreed to stop after this step.
    """

    def __init__(
        self,
        engine: Engine,
        loader: Batches,
        settings: TrainingSettings,
        batch_size: int,
        report: Report,
        stop: StopRequest,
        run: Path,
        start: Progress,
    ) -> None:
        """Nothing is read yet."""
        self.run, self.ranks, self.seen = run, cluster.find_ranks(), list[Seen]()
        self.reader, self.num_readers = cluster.data_ranks(settings.num_sharing)
        self.spikes = Spikes(settings.spike_factor, start.recent, start.num_skipped)
        self.engine, self.loader, self.settings, self.batch_size = engine, loader, settings, batch_size
        self.report, self.stop, self.stopping = report, stop, False
        self.meter = Meter()
        self.norm, self.own_seconds = 0.0, 0.0
        self.alarmed: set[str] = set()
        self.num_updates, self.seconds = 0, 0.0
        self.step_flops = 0  # of this process, counted in its first update
        self.waited_before, self.stages_before = loader.waited_seconds, dict(loader.journal.seconds)

    def open_bar(self, step: int, main: bool) -> tqdm:
        """The bar of progress, on the terminal of rank 0; in a log it grows a line every half minute."""
        if main:
            engine, ranks = self.engine, cluster.find_ranks()
            shares = {"a clip": engine.sequence_parallel, "each matrix": engine.tensor_parallel}
            shared = "".join(f", processes that share {what}: {one}" for what, one in shares.items() if one > 1)
            sys.stderr.write(
                f"training on {engine.device.type} in {engine.precision}, processes: {ranks.num_ranks}, "
                f"ZeRO stage: {engine.zero_stage}{shared}\n"
            )
        quiet = 1.0 if sys.stderr.isatty() else 30.0
        total = self.settings.steps
        self.bar = tqdm(total=total, initial=step, unit="step", disable=not main, mininterval=quiet, dynamic_ncols=True)
        return self.bar

    def update(self, step: int) -> None:
        """One update of the weights.

        Raises:
            NonFiniteLossError: the loss of any process is not finite.
        """
        started = time.perf_counter()
        objective = self.engine.objective
        if isinstance(objective, KnowsShareDone):
            objective.share_done = (step - 1) / self.settings.steps
        self.seen.clear()
        means = [self.micro_batch(step) for _ in range(self.settings.accumulate)]
        loss = sum(means) / len(means)
        share = schedule.factor(step - 1, self.settings.warmup_steps, self.settings.steps)
        self.learning_rate = share * self.settings.learning_rate
        self.norm, made = self.engine.update(self.learning_rate, self.spikes.largest_norm(loss))
        if not math.isfinite(self.norm):
            raise self.broken(f"the gradient of step {step} is not finite", step)
        if not made:
            self.say(f"step {step} is left out as a spike: loss {loss:.4g}, gradient norm {self.norm:.4g}")
        self.spikes.note(loss, self.norm, made)
        self.num_updates += 1
        self.seconds += time.perf_counter() - started
        self.bar.update(1)

    def micro_batch(self, step: int) -> float:
        """Reads a micro-batch of an update and adds its gradient; returns the mean loss of all processes.

        Raises:
            NonFiniteLossError: the loss of any process is not finite.
        """
        started, first = time.perf_counter(), self.loader.position
        batch = next(self.loader).to(self.engine.device)
        share = (self.loader.position - first) // self.num_readers
        loss, metrics = self.engine.forward(batch) if self.step_flops else self.first_forward(batch)
        self.seen.append(Seen(first + self.reader * share, first + (self.reader + 1) * share, loss.detach()))
        self.own_seconds += time.perf_counter() - started
        flags = Flags(loss.detach(), self.stop.requested)
        self.engine.backward(loss)
        # Asked for only now: a GPU has the backward pass to do while the host waits for the forward's flags.
        broken, self.stopping, mean = flags.read()
        if broken:
            raise self.broken(
                f"the loss of step {step} is not finite ({loss.item()} on process {self.ranks.rank})", step
            )
        self.meter.add(loss.detach(), metrics)
        return mean / self.ranks.num_ranks

    def first_forward(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics of the first micro-batch, whose operations are counted."""
        with flops.counted(self.engine.objective) as counted:
            if self.settings.compile:
                # Compiled code calls no hooks: a pass more, as if it had not been, in which nothing is compiled.
                with randomness.kept(), torch.no_grad():
                    self.engine.objective(batch)
            else:
                found = self.engine.forward(batch)
        self.step_flops = self.settings.accumulate * counted.training
        return self.engine.forward(batch) if self.settings.compile else found

    def broken(self, what: str, step: int) -> NonFiniteLossError:
        """Writes down which samples every process read in this step; all processes call it together."""
        mine = [{"start": one.start, "stop": one.stop, "loss": str(one.loss.item())} for one in self.seen]
        processes = [json.loads(text) for text in cluster.texts(json.dumps(mine))]
        path = self.run / f"not_finite_step_{step:08d}.json"
        where = f"is in {path}"
        if self.ranks.rank == 0:
            try:
                path.write_text(json.dumps({"what": what, "step": step, "processes": processes}, indent=2), "utf-8")
            except OSError as error:
                where = f"cannot be written to {path} ({error.strerror}): {processes}"
        return NonFiniteLossError(
            f"{what}: lower learning_rate, lengthen warmup_steps, or use precision fp32; which samples every process "
            f"read {where}"
        )

    def say(self, text: str) -> None:
        """One warning on the terminal of rank 0."""
        if not self.bar.disable:
            self.bar.write(f"warning: {text}", file=sys.stderr)

    def show(self, step: int) -> None:
        """Reports the means since the last report."""
        means = self.meter.read()
        rate = self.num_updates * self.batch_size / self.seconds
        waited = min((self.loader.waited_seconds - self.waited_before) / self.seconds, 1.0)
        speed = {
            "optimizer/learning_rate": self.learning_rate,
            "optimizer/gradient_norm": self.norm,
            "optimizer/num_skipped": self.spikes.num_skipped,
            "speed/samples_per_second": rate,
            "speed/share_waited_for_data": waited,
            **self.utilisation(),
            "data/num_failed": self.loader.journal.counts["failed"],
        }
        self.report.scalars(means | speed | self.shares_of_reading(), step)
        words = [f"loss={means['loss']:.4g}", f"{rate:.3g} samples/s", f"the model waited {waited:.0%} for data"]
        words += [f"MFU {speed['speed/mfu']:.1%}", *self.slowest(step)]
        objective = self.engine.objective
        if isinstance(objective, TellsHowItGoes):
            words.append(objective.in_short(means))
            self.alarm(objective.alarms(means), step)
        self.bar.set_postfix_str(", ".join(words), refresh=False)
        self.num_updates, self.seconds, self.own_seconds = 0, 0.0, 0.0
        self.waited_before, self.stages_before = self.loader.waited_seconds, dict(self.loader.journal.seconds)

    def utilisation(self) -> dict[str, float]:
        """Teraflops of this process, and their share of what its device can do at most."""
        rate = self.step_flops * self.num_updates / self.seconds
        peak = flops.peak_flops_per_second(self.engine.device, self.engine.precision)
        return {"speed/teraflops_per_second": rate / 1e12, "speed/mfu": rate / peak}

    def slowest(self, step: int) -> list[str]:
        """Names the process that the others wait for: its time per update until it has its loss.

        On a GPU that is the time to read the batch and to ask for the loss, which are what differs from host to host.
        """
        if self.ranks.num_ranks == 1:
            return []
        seconds = torch.zeros(self.ranks.num_ranks, device=self.engine.device)
        seconds[self.ranks.rank] = self.own_seconds / self.num_updates
        seconds = cluster.sum_(seconds).cpu()
        most, mean = float(seconds.max()), float(seconds.mean())
        self.report.scalars({"speed/slowest_process_seconds": most, "speed/mean_process_seconds": mean}, step)
        return [f"slowest process {int(seconds.argmax())}: {most:.3g} s (mean {mean:.3g} s)"]

    def alarm(self, alarms: dict[str, str], step: int) -> None:
        """Says each thing that is wrong once, as long as it lasts; during the warm-up nothing has found its place."""
        if step <= self.settings.warmup_steps:
            return
        for name in alarms.keys() - self.alarmed:
            self.say(f"step {step}: {alarms[name]}")
        self.alarmed = set(alarms)

    def shares_of_reading(self) -> dict[str, float]:
        """Share of each stage in the time that reading has taken since the last report, of all workers together."""
        seconds = self.loader.journal.seconds
        spent = {stage: seconds[stage] - self.stages_before.get(stage, 0.0) for stage in seconds}
        total = sum(spent.values())
        return {f"data/{stage}_share": part / total for stage, part in spent.items() if total > 0}

    def preview(self, preview: Preview, step: int) -> None:
        """Shows the objective's work; training goes on as if nothing had been drawn."""
        objective = self.engine.objective
        training = [module for module in objective.modules() if module.training]
        objective.eval()
        with randomness.kept(), self.engine.whole(), torch.no_grad():
            preview(objective, self.report, step)
        for module in training:  # not all: a frozen part may have been in evaluation mode before
            module.training = True


class Flags:
    """What the processes tell each other in a step: whether a loss is broken, a wish to stop, and the loss."""

    def __init__(self, loss: Tensor, stopping: bool) -> None:
        """Starts the exchange, without waiting for a GPU."""
        finite = loss.isfinite()
        mine = torch.stack([(~finite).float(), torch.full_like(loss, float(stopping)), torch.where(finite, loss, 0.0)])
        flags = cluster.sum_(mine)
        self.ready = None
        if flags.is_cuda:
            self.host = torch.empty(3, pin_memory=True).copy_(flags, non_blocking=True)
            self.ready = torch.cuda.Event()
            self.ready.record()
        else:
            self.host = flags

    def read(self) -> tuple[bool, bool, float]:
        """Whether a loss is broken, whether to stop, and the sum of the losses; the same on every process."""
        if self.ready is not None:
            self.ready.synchronize()
        broken, stopping, losses = self.host.tolist()
        return broken > 0, stopping > 0, losses
