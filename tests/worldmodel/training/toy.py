"""A tiny objective over deterministic data, and the cases that need processes of their own."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from streams.loader import Loader
from streams.settings import LoaderSettings
from worldmodel.settings import TrainingSettings
from worldmodel.training.signals import StopRequest

ROOT = Path(__file__).resolve().parents[3]
BATCH_SIZE = 8
SETTINGS = TrainingSettings(
    steps=6, learning_rate=1e-2, warmup_steps=2, report_every=2, preview_every=0, checkpoint_every=0, keep_checkpoints=2
)


class Toy(nn.Module):
    """Denoises vectors; the noise is drawn from torch's random state, as dropout is."""

    def __init__(self, width: int = 16, noise: float = 0.1) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.net = nn.Sequential(nn.Linear(8, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, 8))
        self.register_buffer("num_calls", torch.zeros((), dtype=torch.int64))
        self.noise = noise
        self.losses: list[float] = []
        self.at_call: Callable[[int], object] = lambda number: None

    @property
    def first_weight(self) -> Tensor:
        first = self.net[0]
        assert isinstance(first, nn.Linear)
        return first.weight

    def forward(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self.num_calls += 1
        noise = self.noise * torch.randn_like(batch) if self.noise else 0.0
        loss = (self.net(batch + noise) - batch).square().mean()
        self.losses.append(loss.item() if not loss.requires_grad else loss.detach().item())
        self.at_call(len(self.losses))
        return loss, {"twice": 2 * loss, "absent": torch.full_like(loss, float("nan"))}


class HiddenToy(Toy):
    """With a matrix for Muon."""

    def hidden_matrices(self) -> list[nn.Parameter]:
        return [self.net[0].weight]  # type: ignore[list-item]


class Vectors:
    """A source of 20 vectors, jittered by the generator of their position."""

    def __len__(self) -> int:
        return 20

    def read(self, index: int, generator: np.random.Generator) -> Tensor:
        vector = np.sin(np.arange(8) * (index + 1)) + 0.01 * generator.standard_normal(8)
        return torch.from_numpy(vector.astype(np.float32))

    def collate(self, items: list[Tensor]) -> Tensor:
        return torch.stack(items)


def make_loader(position: int, accumulate: int = 1) -> Loader:
    from worldmodel.data import micro_batches
    from worldmodel.training.cluster import find_ranks

    ranks = find_ranks()
    settings = micro_batches(LoaderSettings(batch_size=BATCH_SIZE, num_workers=0), accumulate)
    return Loader(Vectors(), settings, 0, position, rank=ranks.rank, num_ranks=ranks.num_ranks)


def train_toy(run: Path, toy: Toy | None = None, **options: Any) -> tuple[Toy, Any]:
    """Trains; settings are given by name beside the loop's own arguments."""
    from worldmodel.training.checkpoint import Description
    from worldmodel.training.loop import train

    toy = toy or Toy()
    own = {name: options.pop(name) for name in list(options) if hasattr(SETTINGS, name)}
    description = options.pop("description", Description({"seed": 0}, {"model": {"width": 16}, "codec": "abc"}))
    settings = replace(SETTINGS, **own)
    loader = partial(make_loader, accumulate=settings.accumulate)
    return toy, train(toy, loader, settings, BATCH_SIZE, run, description, **options)


class AfterThree(StopRequest):
    """A wish to stop that comes in the third step."""

    def __init__(self) -> None:
        super().__init__()
        self.num_asked = 0

    @property
    def requested(self) -> bool:
        self.num_asked += 1
        return self.num_asked >= 3


def launch(
    case: str,
    folder: Path,
    num_ranks: int = 1,
    slurm: bool = False,
    module: str = "tests.worldmodel.training.toy",
    **extra: str,
) -> list[subprocess.Popen]:
    """Starts one process per rank; `case` is a function of this file, or of `module`, that takes the folder."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    processes = []
    for rank in range(num_ranks):
        names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID") if slurm else ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        ranks = dict(zip(names, (str(rank), str(num_ranks), str(rank)), strict=True))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = os.environ | ranks | address | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | extra
        command = [sys.executable, "-W", "error", "-m", module, case, str(folder)]
        processes.append(
            subprocess.Popen(
                command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
    return processes


def finish(processes: list[subprocess.Popen], code: int = 0) -> list[str]:
    """What the processes printed; they must all end with `code`."""
    printed = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [code] * len(processes), "\n".join(printed)
    return printed


def every_stage(folder: Path) -> None:
    """Losses of all stages, the weights of a checkpoint, and an interrupted and resumed run."""
    from tests.worldmodel.training.world import steps_of_world
    from worldmodel.training import cluster

    found = losses_of_stages(folder) | exchanged(folder) | {"world": steps_of_world(num_steps=4)}
    for stage in (0, 1, 2, 3):
        toy, _ = train_toy(folder / f"muon{stage}", HiddenToy(noise=0.0), zero_stage=stage, optimizer="muon")
        losses = torch.tensor(toy.losses, dtype=torch.float64)
        found[f"muon{stage}"] = (cluster.sum_(losses) / cluster.find_ranks().num_ranks).tolist()
    whole, _ = train_toy(folder / "noisy")
    stop = StopRequest()
    first = Toy()
    if cluster.find_ranks().rank == cluster.find_ranks().num_ranks - 1:  # only one process is told
        first.at_call = lambda number: number == 3 and stop.handle(signal.SIGUSR1)
    _, result = train_toy(folder / "halves", first, stop=stop)
    assert result.interrupted
    assert result.step == 3
    second, _ = train_toy(folder / "halves", resume=True)
    found["same"] = first.losses + second.losses == whole.losses
    found["draws"] = whole.losses
    found["texts"] = cluster.texts(f"rank {cluster.find_ranks().rank}")
    found["broken"] = broken_on_the_last_rank(folder / "broken")
    (folder / f"rank{cluster.find_ranks().rank}.json").write_text(json.dumps(found))
    cluster.leave(0)


def losses_of_stages(folder: Path, num_steps: int = 20) -> dict[str, Any]:
    """Losses of every stage, of bf16 and of micro-batches, as means over the processes; and sums of the weights."""
    from worldmodel.training.checkpoint import load_weights

    found: dict[str, Any] = {}
    cases: dict[str, dict[str, Any]] = {str(stage): {"zero_stage": stage} for stage in (0, 1, 2, 3)}
    cases |= {"bf16": {"precision": "bf16"}, "micro": {"accumulate": 2, "zero_stage": 2}}
    for name, options in cases.items():
        toy, result = train_toy(folder / f"whole{name}", Toy(noise=0.0), steps=num_steps, **options)
        found[f"losses{name}"] = means(toy.losses, num_steps)
        weights = load_weights(result.checkpoint)[0]
        found[f"sum{name}"] = sum(value.double().sum().item() for key, value in weights.items() if key != "num_calls")
    return found


def means(losses: list[float], num_steps: int) -> list[float]:
    """Losses of the steps, over the micro-batches and the processes."""
    from worldmodel.training import cluster

    mine = torch.tensor(losses, dtype=torch.float64).view(num_steps, -1).mean(1)
    return (cluster.sum_(mine) / cluster.find_ranks().num_ranks).tolist()


OPTIMIZERS = ("adamw", "muon")
EXCHANGES = ((0, 3), (1, 2), (2, 1), (3, 0))  # ZeRO stage of the first three steps, and of the last three


def halves_of(folder: Path) -> None:
    """Runs that stop after three steps, for another number of processes to go on from."""
    for optimizer in OPTIMIZERS:
        for stage, _ in EXCHANGES:
            options: dict[str, Any] = {"zero_stage": stage, "optimizer": optimizer, "stop": AfterThree()}
            train_toy(folder / f"{optimizer}{stage}", HiddenToy(noise=0.0), **options)


def rest_of(folder: Path, *optimizers: str) -> dict[str, list[float]]:
    """Losses of the last three steps of `halves_of`."""
    found = {}
    for optimizer in optimizers or OPTIMIZERS:
        for before, after in EXCHANGES:
            options: dict[str, Any] = {"zero_stage": after, "optimizer": optimizer, "resume": True}
            toy, _ = train_toy(folder / f"{optimizer}{before}", HiddenToy(noise=0.0), **options)
            found[f"{optimizer}{before}"] = means(toy.losses, 3)
    return found


def exchanged(folder: Path) -> dict[str, Any]:
    """Goes on with what one process left in `one`, and leaves halves of its own in `several`."""
    halves_of(folder / "several")
    return {"rest": rest_of(folder / "one")}


def sameness(folder: Path) -> None:
    """`losses_of_stages` alone, for many processes, and clips or matrices that two or four of them share."""
    from tests.worldmodel.training.shared_matrices import state_put_back
    from tests.worldmodel.training.world import steps_of_world
    from worldmodel.training import cluster

    found = losses_of_stages(folder)
    found["groups of 2"] = steps_of_world(num_steps=4, sequence_parallel=2, zero_stage=3)
    found["group of 4"] = steps_of_world(num_steps=4, sequence_parallel=4, zero_stage=2)
    found["matrices of groups of 2"] = steps_of_world(num_steps=4, tensor_parallel=2, zero_stage=2)
    found["put back"] = state_put_back(folder)
    (folder / f"rank{cluster.find_ranks().rank}.json").write_text(json.dumps(found))
    cluster.leave(0)


def broken_on_the_last_rank(folder: Path) -> str:
    """The last process meets a loss that is not finite; what every process says of it."""
    from worldmodel.training import cluster
    from worldmodel.training.loop import NonFiniteLossError

    toy = Toy()
    if cluster.find_ranks().rank == cluster.find_ranks().num_ranks - 1:
        toy.at_call = lambda number: number == 2 and setattr(toy, "noise", float("nan"))
    try:
        train_toy(folder, toy)
    except NonFiniteLossError as error:
        return str(error)
    return "nothing"


def full_disk(folder: Path) -> None:
    """A checkpoint fits; then random states, weights and the optimizer's (16, 150 and 300 kB) are in turn too large.

    Last, the curves are: TensorBoard's thread then ends with a traceback of its own.
    """
    from worldmodel.errors import CheckpointError
    from worldmodel.training.report import Report

    train_toy(folder / "run", Toy(width=2048), steps=3)
    for limit_bytes in (1000, 50_000, 200_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))
        try:
            train_toy(folder / "run", Toy(width=2048), resume=True, report_every=100)
        except CheckpointError as error:
            print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    report = Report(folder / "run")
    try:
        report.text("long", "x" * 100_000, 1)
        report.flush()
        report.flush()
    except CheckpointError as error:
        print(error)
    report.close()


def full_disk_of_the_last_rank(folder: Path) -> None:
    """A checkpoint fits; then one process alone cannot write its part of the next."""
    from worldmodel.errors import CheckpointError
    from worldmodel.training import cluster

    train_toy(folder / "run", Toy(width=2048), steps=3)
    ranks, before = cluster.find_ranks(), resource.getrlimit(resource.RLIMIT_FSIZE)
    if ranks.rank == ranks.num_ranks - 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        train_toy(folder / "run", Toy(width=2048), resume=True, steps=4)
    except CheckpointError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    _, result = train_toy(folder / "run", Toy(width=2048), resume=True, steps=4)
    print("then", result.step)


def interruptible(folder: Path) -> None:
    """What the command does: handlers first, a run, and the exit status for an interrupted one."""
    from worldmodel.training import signals

    stop = signals.install()
    from worldmodel.training import checkpoint, cluster

    toy = Toy()
    toy.at_call = lambda number: (folder / "running").touch()
    resume = checkpoint.newest(folder / "run") is not None
    _, result = train_toy(folder / "run", toy, steps=int(os.environ["STEPS"]), stop=stop, resume=resume)
    cluster.leave(signals.EXIT_INTERRUPTED if result.interrupted else 0)


def hanging_rank(folder: Path) -> None:
    """The last process waits for ever in its third step, and the others for it."""
    from worldmodel.training import cluster

    def wait_in_vain(number: int) -> None:
        if number == 3:
            time.sleep(1000)

    toy, ranks = Toy(), cluster.find_ranks()
    if ranks.rank == ranks.num_ranks - 1:
        toy.at_call = wait_in_vain
    train_toy(folder, toy, checkpoint_every=1, hang_seconds=15.0)


def unbroken(folder: Path) -> None:
    """Twelve steps at a stretch, with the losses of each process in a file."""
    from worldmodel.training import cluster

    folder.mkdir(exist_ok=True)
    toy, _ = train_toy(folder, steps=12)
    text = "".join(f"{loss!r}\n" for loss in toy.losses)
    (folder / f"losses{cluster.find_ranks().rank}").write_text(text)
    cluster.leave(0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    globals()[sys.argv[1]](Path(sys.argv[2]))
