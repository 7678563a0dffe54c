"""What is measured of a variant: its codec, its codes, and the world model that predicts them."""

import csv
import json
from pathlib import Path
from typing import Any

import torch

from streams.clip import to_float, to_uint8
from tools.study.plan import Plan
from worldmodel.cache.code_statistics import StillStatistics
from worldmodel.cache.latents import LatentCache
from worldmodel.evaluation.codec_measures import measure_codes, through
from worldmodel.evaluation.codec_pictures import quality_of
from worldmodel.evaluation.horizons import ROLLOUT
from worldmodel.evaluation.reading import spread_clips
from worldmodel.evaluation.world import HORIZONS, evaluate_run, heldout_videos
from worldmodel.run import LoadedRun, load_run
from worldmodel.settings import EvaluateSettings


def measure_variant(plan: Plan) -> dict[str, Any]:
    """`worldmodel evaluate`, and the codec on the very clips that it rolls out.

    Returns:
        model_bits: per frame, given the true frames before it.
        rollout_psnr, copy_psnr: by horizon, in decibels.
        drift: by horizon, how differently rollouts use their codes than the truth, in bits.
        codec: psnr and ssim with intervals, bits_per_frame of the range coder, scales, still_finest_codes.
        num_clips: held-out clips that were measured.
    """
    evaluate_run(plan.evaluate)
    path = Path(plan.evaluate.run) / "evaluation.json"
    found = {entry["name"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))}
    rollouts = {horizon: found.get(f"PSNR at horizon {horizon} (dB)") for horizon in HORIZONS}
    with path.with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        drift = {
            int(row["horizon"]): float(row[f"code divergence of {ROLLOUT} (bits)"]) for row in csv.DictReader(file)
        }
    run = load_run(plan.evaluate.run)
    codec, num_clips = measure_codec(run, LatentCache(plan.cache.out), plan.evaluate)
    return {
        "model_bits": found["bits per frame against unigram entropy"]["value"],
        "rollout_psnr": {horizon: entry["value"] for horizon, entry in rollouts.items() if entry},
        "copy_psnr": {horizon: entry["baseline"] for horizon, entry in rollouts.items() if entry},
        "drift": {horizon: drift[horizon] for horizon in rollouts if horizon in drift},
        "codec": codec,
        "num_clips": num_clips,
    }


def measure_codec(run: LoadedRun, cache: LatentCache, settings: EvaluateSettings) -> tuple[dict[str, Any], int]:
    """The codec of a run on held-out clips of context and horizon, encoded from their first frame on."""
    source = heldout_videos(run, cache, settings.context_frames + settings.horizon)
    batch = source.collate(list(spread_clips(source, settings.num_clips, [])))
    source.close()
    picture = run.picture
    coded = through(
        batch.frames,
        lambda frames: picture.encode(to_float(frames)),
        lambda codes: to_uint8(picture.decode(codes)),
        torch.device("cpu"),
    )
    still = StillStatistics(picture.pyramid)
    still.add(coded.codes, batch.frames)
    return {
        **measure_codes(picture.pyramid, coded),
        **quality_of(coded.decoded, batch.frames, batch.videos, settings.seed),
        "still_finest_codes": still.summary(),
    }, len(batch.frames)
