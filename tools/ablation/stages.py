"""A candidate from its name to its measures; what is done already is kept."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from tools.ablation.candidate import Candidate
from tools.ablation.candidates import build
from tools.ablation.measure import heldout_batches, measure
from tools.ablation.settings import AblationSettings
from worldmodel.cache.latents import CodeBatch, LatentCache, require_codec
from worldmodel.codecs.quantizer import MultiScaleQuantizer
from worldmodel.codecs.store import PictureCodec, load_codec
from worldmodel.data import open_data
from worldmodel.errors import SettingsError
from worldmodel.settings import TrainSettings
from worldmodel.training import checkpoint, flops, signals
from worldmodel.training.checkpoint import Description
from worldmodel.training.loop import train

REFERENCE = "coarse-to-fine"
MEASURES = "measures.json"


def open_codec(settings: AblationSettings) -> PictureCodec:
    """The codec of the cache.

    Raises:
        CacheError: the cache is of another one.
        SettingsError: it is not a codec of family vq.
    """
    codec = load_codec(Path(settings.codec))
    quantizer = getattr(codec, "quantizer", None)
    if codec.kind != "picture" or not isinstance(quantizer, MultiScaleQuantizer):
        raise SettingsError(f"codec={settings.codec} is of another family: give a picture codec of family vq")
    require_codec(settings.cache, {codec.kind: str(codec.fingerprint)})
    return codec  # pyright: ignore[reportReturnType]


def run_candidate(name: str, settings: AblationSettings, picture: PictureCodec) -> dict[str, Any]:
    """Train and measure one candidate, if it was not yet.

    Raises:
        KeyboardInterrupt: it was asked to stop; what is finished is kept.
        SettingsError: there are measures of other settings.
        UserError: the cache or its videos cannot be used.
    """
    folder = Path(settings.out) / name
    made_of = made_of_settings(settings, picture)
    path = folder / MEASURES
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["made_of"] != made_of:
            raise SettingsError(f"{folder} holds {name} of other settings: give another --out, or remove it")
        return found
    candidate = build(name, settings.model, quantizer_of(picture), settings.training.seed)
    batch = some_batch(settings)
    reference = build(REFERENCE, settings.model, quantizer_of(picture), settings.training.seed)
    budget = settings.training.steps * step_flops(reference, batch)
    each = step_flops(candidate, batch)
    steps = max(1, round(budget / each))
    print(f"\n{name}: {each / 1e9:.2f} gigaflops a step, {steps} steps", flush=True)
    described = {
        "made_of": made_of,
        "parameters": sum(p.numel() for p in candidate.parameters() if p.requires_grad),
        "step_gigaflops": each / 1e9,
        "steps": steps,
    }
    train_candidate(candidate, steps, settings, picture, folder)
    found = described | measure(candidate, picture, settings)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(found, indent=2), encoding="utf-8")
    partial.replace(path)
    return found


def some_batch(settings: AblationSettings) -> CodeBatch:
    """Clips of a training step, to count or time it."""
    batch = next(iter(heldout_batches(LatentCache(settings.cache), settings)))
    return CodeBatch(**{key: value[: settings.loader.batch_size] for key, value in vars(batch).items()})


def quantizer_of(picture: PictureCodec) -> MultiScaleQuantizer:
    """The frozen quantizer of a codec of family vq."""
    quantizer = picture.quantizer
    assert isinstance(quantizer, MultiScaleQuantizer), "open_codec has looked"
    return quantizer


def made_of_settings(settings: AblationSettings, picture: PictureCodec) -> dict[str, Any]:
    """All that the measures depend on, as JSON values."""
    whole = dataclasses.asdict(settings) | {"codec": str(picture.fingerprint)}
    return json.loads(json.dumps({key: value for key, value in whole.items() if key not in ("out", "names", "speed")}))


def step_flops(candidate: Candidate, batch: CodeBatch) -> int:
    """Operations of forward and backward pass of one step."""
    candidate.train()
    with torch.random.fork_rng(), flops.counted(candidate) as found:
        candidate(batch)
    return found.training


def train_candidate(
    candidate: Candidate, steps: int, settings: AblationSettings, picture: PictureCodec, folder: Path
) -> None:
    """Train to the last step, from the newest checkpoint if there is one.

    Raises:
        KeyboardInterrupt: it was asked to stop.
    """
    training = dataclasses.replace(settings.training, steps=steps)
    run = TrainSettings(
        cache=settings.cache,
        codecs=[settings.codec],
        run=str(folder),
        num_frames=settings.num_frames,
        loader=settings.loader,
        training=training,
    )
    data = open_data(run, [picture])
    folder.mkdir(parents=True, exist_ok=True)
    description = Description(settings=dataclasses.asdict(settings) | {"steps": steps})
    resumed = checkpoint.newest(folder, tell=False) is not None
    with signals.stopping() as stop:
        result = train(
            candidate, data.make_loader, training, settings.loader.batch_size, folder, description,
            resume=resumed, stop=stop,
        )  # fmt: skip
    if result.interrupted:
        raise KeyboardInterrupt
    candidate.requires_grad_(False)
