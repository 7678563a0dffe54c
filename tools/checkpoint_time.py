"""`python -m tools.checkpoint_time`: what writing a checkpoint costs beside the steps between two of them."""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

# As in worldmodel.cli: read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tools.exit_status import exit_status
from worldmodel.config import parse

PROG = "python -m tools.checkpoint_time"
NOTE = """A world model of random weights is trained for some steps and saved some times. Copying weights and optimizer
into the host's memory must be waited for in any case; an asynchronous writer could hide the rest."""


@dataclass(frozen=True)
class CheckpointTimeSettings:
    """Measures how long steps and checkpoints of a world model take.

    Attributes:
        dim: of trunk and decoder.
        depth: blocks of the trunk; the decoder has a quarter of them.
        batch_size: clips of a step.
        num_frames: frames of a clip.
        num_steps: measured, after one that is not.
        num_saves: measured.
        folder: where the checkpoints go, and are deleted again; a temporary one if not given.
    """

    dim: int = 512
    depth: int = 12
    batch_size: int = 2
    num_frames: int = 8
    num_steps: int = 3
    num_saves: int = 3
    folder: str | None = None


def main(argv: list[str] | None = None) -> int:
    """Measures, and prints a line for each figure."""
    arguments = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: print("\n".join(measure(parse(CheckpointTimeSettings, arguments, PROG, NOTE)))))


def seconds_of(call: Callable[[], object]) -> float:
    """How long a call takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def measure(settings: CheckpointTimeSettings) -> list[str]:
    """The lines of the report."""
    with tempfile.TemporaryDirectory(prefix="worldmodel.", dir=settings.folder) as folder:
        return measure_in(Path(folder), settings)


def measure_in(folder: Path, settings: CheckpointTimeSettings) -> list[str]:
    """Trains and saves in a folder."""
    from streams.loader import Loader
    from tools.kill_storm.settings import KillStormSettings
    from tools.kill_storm.world import make_world
    from worldmodel.cache.latents import LatentSource
    from worldmodel.config import read_settings
    from worldmodel.run import build_objective, load_codecs
    from worldmodel.settings import TrainSettings, TransformerSettings
    from worldmodel.training import checkpoint
    from worldmodel.training.engine import Engine

    small = read_settings(TrainSettings, make_world(folder / "world", KillStormSettings(processes=1), 1))
    trunk = TransformerSettings(dim=settings.dim, depth=settings.depth, num_heads=max(settings.dim // 64, 1))
    model = replace(small.model, trunk=trunk, decoder=replace(trunk, depth=max(settings.depth // 4, 1)))
    picture, sound = load_codecs([Path(codec) for codec in small.codecs])
    objective = build_objective(replace(small, model=model), picture, sound)
    num_parameters = sum(one.numel() for one in objective.parameters() if one.requires_grad)
    engine = Engine(objective, small.training, settings.batch_size)
    assert small.cache is not None
    source = LatentSource(small.cache, settings.num_frames)
    loader = Loader(source, replace(small.loader, batch_size=settings.batch_size, num_workers=0), 0)

    def step() -> None:
        engine.backward(engine.forward(next(loader).to(engine.device))[0])
        engine.update(1e-4)

    step()
    steps = [seconds_of(step) for _ in range(settings.num_steps)]
    copies = [seconds_of(lambda: (engine.weights(), engine.optimizer_state())) for _ in range(settings.num_saves)]
    description = checkpoint.Description()
    saves = [
        seconds_of(lambda number=number: checkpoint.save(engine, folder, checkpoint.Progress(number), description, 1))
        for number in range(1, settings.num_saves + 1)
    ]
    newest = checkpoint.newest(folder)
    assert newest is not None
    num_bytes = sum(path.stat().st_size for path in newest.iterdir())
    return report(num_parameters, num_bytes, steps, copies, saves)


def report(
    num_parameters: int, num_bytes: int, steps: list[float], copies: list[float], saves: list[float]
) -> list[str]:
    """The figures in words: medians, and the share of a run's time that checkpoints take."""
    step, copy, save = (statistics.median(values) for values in (steps, copies, saves))
    shares = ", ".join(f"every {every}: {save / (save + every * step):.2%}" for every in (100, 500, 1000))
    return [
        f"{num_parameters / 1e6:.1f} million parameters, {num_bytes / 1e6:.0f} MB in a checkpoint",
        f"a step {step:.2f} s, a checkpoint {save:.2f} s, as long as {save / step:.2f} steps (medians of {len(steps)}, "
        f"{len(saves)}; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)",
        f"of it {copy:.2f} s copy, for which an asynchronous writer waits too, {save - copy:.2f} s write and verify",
        f"share of the run's time with a checkpoint {shares}",
    ]


if __name__ == "__main__":
    sys.exit(main())
