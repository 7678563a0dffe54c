"""The stages of a variant, each left out where its result is there: codec, latent cache, world model, measures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.latents import build
from tools.study.measure import measure_variant
from tools.study.plan import MADE_OF, MEASURES, Plan
from worldmodel.codecs.store import DESCRIPTION
from worldmodel.commands import train_codec, train_world
from worldmodel.training import checkpoint, signals
from worldmodel.training.loop import TrainResult


def run_variant(plan: Plan) -> dict[str, Any]:
    """Make what is missing of a variant.

    Returns:
        Its measures.

    Raises:
        UserError: a stage cannot be done.
        KeyboardInterrupt: it was asked to stop; what is finished is kept.
    """
    write_json(plan.folder / MADE_OF, plan.made_of)
    codec = Path(plan.tokenizer.run)
    _stage(plan, "picture codec", (codec / DESCRIPTION).is_file(), lambda: _train(train_codec, plan.tokenizer))
    cache = Path(plan.cache.out)
    _stage(plan, "latent cache", (cache / "zarr.json").is_file(), lambda: build.run(plan.cache))
    trained = _steps(Path(plan.train.run)) >= plan.train.training.steps
    _stage(plan, "world model", trained, lambda: _train(train_world, plan.train))
    path = plan.folder / MEASURES
    _stage(plan, "measures", path.is_file(), lambda: write_json(path, measure_variant(plan)))
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write a file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2), encoding="utf-8")
    partial.replace(path)


def _stage(plan: Plan, title: str, done: bool, make: Callable[[], object]) -> None:
    print(f"\n{plan.name}: {title}{' (kept)' if done else ''}", flush=True)
    if not done:
        make()


def _train(command: Callable[..., TrainResult], settings: Any) -> None:
    with signals.stopping() as stop:
        resumed = checkpoint.newest(Path(settings.run), tell=False) is not None
        if command(settings, resumed, stop).interrupted:
            raise KeyboardInterrupt


def _steps(run: Path) -> int:
    newest = checkpoint.newest(run, tell=False)
    return 0 if newest is None else checkpoint.read(newest)["step"]
