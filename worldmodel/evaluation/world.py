"""`worldmodel evaluate`: rollouts against copying, bits against baselines, heads against chance, on held-out videos."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from streams.videos import VideoSource
from worldmodel.cache.latents import CodeBatch, LatentCache, LatentSource, require_codec
from worldmodel.data import opened_cache
from worldmodel.devices import find_device
from worldmodel.errors import CacheError, SettingsError
from worldmodel.evaluation.films import CodedModel
from worldmodel.evaluation.horizons import COPY, ROLLOUT, measure_horizons
from worldmodel.evaluation.metrics import bootstrap_interval
from worldmodel.evaluation.plots import plot_horizons
from worldmodel.objective import WorldObjective
from worldmodel.rollouts.sampling import check_sampling
from worldmodel.run import LoadedRun, load_run
from worldmodel.settings import EvaluateSettings

HORIZONS = (1, 2, 4, 8, 16, 32, 64)
AIMED = (1, 2)  # horizons at which beating the copy is an aim; at the longer ones it is required
BATCH_CLIPS = 16
MAX_UNIGRAM_CLIPS = 2000


@dataclass(frozen=True)
class Comparison:
    """One line of the table: a measured value against what it must beat.

    Attributes:
        name: what is measured.
        value: the model's.
        low: lower end of the 95 % interval of how far it is ahead.
        high: upper end.
        baseline: what it must beat.
        passed: whether it does, with the whole interval.
        required: whether it must, or it is an aim.
    """

    name: str
    value: float
    baseline: float
    low: float
    high: float
    passed: bool
    required: bool = True


def evaluate_run(settings: EvaluateSettings) -> bool:
    """Measure, print the table, and write evaluation.json, .csv and .png into the run's folder.

    Of light weights the files are named after them, as evaluation_int8.json, and those of the run as it is are kept.

    Returns:
        Whether all that is required was passed.

    Raises:
        UserError: the run, its cache or the held-out videos cannot be used.
    """
    for name, least in (("context_frames", 1), ("horizon", 1), ("num_clips", 2)):
        if getattr(settings, name) < least:
            raise SettingsError(f"{name}={getattr(settings, name)} is out of range: it must be {least} or more")
    torch.manual_seed(settings.seed)
    run = load_run(settings.run, str(find_device(settings.device)), settings.weights)
    check_sampling(settings.sampling, len(run.model.decoder.slices))
    codecs = [codec for codec in (run.picture, run.sound) if codec is not None]
    source = run.settings if settings.cache is None else replace(run.settings, cache=settings.cache, videos=None)
    with opened_cache(source, codecs, settings.num_clips) as cache:
        require_codec(cache.path, {codec.kind: str(codec.fingerprint) for codec in codecs})
        comparisons = measure_rollouts(run, cache, settings)
        comparisons += measure_codes(run, cache, settings)
    weights = "" if settings.weights == "fp32" else f", weights in {settings.weights}"
    print(f"{settings.run}, step {run.step}{weights}, on videos held out of its training:")
    print("\n".join(table(comparisons)))
    out = outputs_of(settings).with_suffix(".json")
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps([asdict(comparison) for comparison in comparisons], indent=2), encoding="utf-8")
    partial.replace(out)
    print("\n".join(str(out.with_suffix(ending)) for ending in (".json", ".csv", ".png")))
    return all(comparison.passed for comparison in comparisons if comparison.required)


def table(comparisons: list[Comparison]) -> list[str]:
    """The comparisons as lines of text."""
    lines = [f"{'':42}{'model':>9}{'to beat':>9}   {'ahead by (95 %)':>18}"]
    for entry in comparisons:
        verdict = "pass" if entry.passed else ("FAIL" if entry.required else "not reached (aim)")
        ahead = f"{entry.low:+.3f} … {entry.high:+.3f}"
        lines.append(f"{entry.name:42}{entry.value:9.3f}{entry.baseline:9.3f}   {ahead:>18}  {verdict}")
    return lines


def measure_rollouts(run: LoadedRun, cache: LatentCache, settings: EvaluateSettings) -> list[Comparison]:
    """PSNR of rollouts of held-out videos against copying the last true frame, clip by clip.

    Also prints how far the codes of rollouts drift, and writes evaluation.png and evaluation.csv.
    """
    source = heldout_videos(run, cache, settings.context_frames + settings.horizon)
    horizons = measure_horizons(run, source, settings, next(run.objective.parameters()).device)
    source.close()
    out = outputs_of(settings)
    plot_horizons(horizons.psnr, horizons.divergence, run.picture.clips.frames_per_second, out.with_suffix(".png"))
    horizons.write(out.with_suffix(".csv"))
    shown = [horizon for horizon in HORIZONS if horizon <= settings.horizon]
    print("\n".join([*horizons.left_out, *horizons.drift_lines(shown)]))
    return [
        ahead_of(
            f"PSNR at horizon {horizon} (dB)",
            horizons.psnr[ROLLOUT][:, horizon - 1],
            horizons.psnr[COPY][:, horizon - 1],
            settings.seed,
            required=horizon not in AIMED,
        )
        for horizon in shown
    ]


def outputs_of(settings: EvaluateSettings) -> Path:
    """Where the results of these settings go, but for the ending."""
    return Path(settings.run) / ("evaluation" if settings.weights == "fp32" else f"evaluation_{settings.weights}")


def heldout_videos(coded: CodedModel, cache: LatentCache, num_frames: int) -> VideoSource:
    """The held-out videos of a cache as clips long enough for a rollout.

    Raises:
        CacheError: there are none, or they are no longer where they were.
    """
    chosen = sorted({int(cache.rows["video"][int(clip)]) for clip in cache.clips_of("heldout")})
    paths = [Path(cache.info.videos[video][0]) for video in chosen]
    missing = [path for path in paths if not path.is_file()]
    if not paths or missing:
        what = f"{missing[0]} is not there any more" if missing else "none was held out"
        raise CacheError(f"the held-out videos of {cache.path} cannot be read: {what}; build the cache again")
    return VideoSource(paths, replace(coded.picture.clips, num_frames=num_frames))


@torch.no_grad()
def measure_codes(run: LoadedRun, cache: LatentCache, settings: EvaluateSettings) -> list[Comparison]:
    """Bits of the next frame against two baselines, and every head against chance."""
    source = LatentSource(cache.path, run.settings.num_frames, "heldout", random_start=False)
    count = min(settings.num_clips, len(source))
    indices = np.linspace(0, len(source) - 1, count).astype(int)
    own, shuffled, unigram = [], [], []
    scores: dict[str, list[np.ndarray]] = {}
    frequencies, device = unigram_bits(run, cache), next(run.objective.parameters()).device
    for start in tqdm(range(0, count, BATCH_CLIPS), "codes", unit="batch"):
        items = [source.read(int(i), np.random.default_rng(0)) for i in indices[start : start + BATCH_CLIPS]]
        if len(items) < 2:
            break  # nothing to shuffle with
        batch = source.collate(items).to(device)
        codes = torch.cat((batch.picture, batch.sound), 2)
        own.append(bits_of_clips(run.objective, codes, codes, batch))
        shuffled.append(bits_of_clips(run.objective, codes.roll(1, 0), codes, batch))
        counted = torch.ones(codes[:, 1:].shape, dtype=torch.bool)
        counted[..., batch.picture.shape[2] :] = batch.has_sound.cpu()[:, None, None]
        each = frequencies[torch.arange(codes.shape[2]), codes[:, 1:].cpu()]
        unigram.append((each * counted).sum(-1).mean(1).numpy())
        states = run.model.states(codes, batch.has_sound)
        for name, result in run.objective.head_results(batch, states, codes, len(items)).items():
            scores.setdefault(name, []).append(result.scores.float().cpu().numpy())
    if not own:
        raise CacheError(f"{cache.path} has one held-out clip: comparing needs two, build it with more videos")
    ours = np.concatenate(own)
    rows = [
        ahead_of("bits per frame against unigram entropy", -ours, -np.concatenate(unigram), settings.seed),
        ahead_of("bits per frame with shuffled context", -ours, -np.concatenate(shuffled), settings.seed),
    ]
    rows = [Comparison(**{**asdict(r), "value": -r.value, "baseline": -r.baseline}) for r in rows]
    for name, parts in scores.items():
        values = np.concatenate(parts)
        values = values[np.isfinite(values)]
        if len(values):
            chance = float(run.objective.heads[name].chance)  # type: ignore[arg-type]
            rows.append(ahead_of(f"head {name}, score", values, np.full_like(values, chance), settings.seed))
    return rows


def bits_of_clips(
    objective: WorldObjective,
    context: Int[Tensor, "batch frame code"],
    codes: Int[Tensor, "batch frame code"],
    batch: CodeBatch,
) -> Float[np.ndarray, " batch"]:
    """Mean bits per frame of every clip, given a context (its own, or another's)."""
    states = objective.model.states(context, batch.has_sound)
    found = objective.next_frame(states, context, codes, batch.has_sound)
    return ((found.nats * found.counted).sum(-1).mean(1) / np.log(2)).cpu().numpy()


def unigram_bits(run: LoadedRun, cache: LatentCache) -> Float[Tensor, "code vocabulary"]:
    """Bits of every code of every place under how often it occurs in its scale in the training clips (add one)."""
    clips = cache.clips_of("train")
    clips = clips[np.linspace(0, len(clips) - 1, min(MAX_UNIGRAM_CLIPS, len(clips))).astype(int)]
    kinds = ["picture", "sound"][: len(run.model.quantizers)]
    codes = np.concatenate([np.stack([cache.rows[kind][int(clip)] for clip in clips]) for kind in kinds], -1)
    scales = run.model.decoder.scales
    bits = torch.full((codes.shape[-1], max(scale.vocabulary for scale in scales)), torch.inf)
    for scale, columns in zip(scales, run.model.decoder.slices, strict=True):
        counts = np.bincount(codes[..., columns].reshape(-1), minlength=scale.vocabulary) + 1.0
        bits[columns, : scale.vocabulary] = torch.from_numpy(-np.log2(counts / counts.sum())).float()
    return bits


def ahead_of(
    name: str,
    values: Float[np.ndarray, " clip"],
    baseline: Float[np.ndarray, " clip"],
    seed: int,
    required: bool = True,
) -> Comparison:
    """Compare clip by clip; passed when the whole 95 % interval of the mean difference is above zero."""
    low, high = bootstrap_interval((values - baseline).astype(np.float64), np.random.default_rng(seed))
    return Comparison(name, float(values.mean()), float(baseline.mean()), low, high, low > 0, required)
