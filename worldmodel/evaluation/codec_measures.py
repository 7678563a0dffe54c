"""What is measured of every codec, of pictures or of sound: bits, use of its codes, speed; and means with intervals."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from tqdm import tqdm

from worldmodel.cache.code_statistics import CodeStatistics
from worldmodel.evaluation.entropy import coded_bits
from worldmodel.evaluation.metrics import bootstrap_interval
from worldmodel.layout import Pyramid

BATCH_CLIPS = 8


@dataclass(frozen=True)
class Coded:
    """Clips through a codec and back.

    Attributes:
        codes: of every frame.
        decoded: what the codec makes of them: frames (or their sound), on the CPU.
        encoded_per_second: frames, on the device that was used, in batches of 8 clips: the median of the batches.
        decoded_per_second: the same for the way back.
    """

    codes: Int64[np.ndarray, "clip frame code"]
    decoded: Tensor
    encoded_per_second: float
    decoded_per_second: float


def through(
    clips: Tensor, encode: Callable[[Tensor], Tensor], decode: Callable[[Tensor], Tensor], device: torch.device
) -> Coded:
    """Clips through a codec, batch by batch; the first batch is coded twice, so that no start-up is timed.

    Args:
        clips: whatever the codec takes, clips along the first axis and frames along the second.
        encode: clips to codes, on the device.
        decode: codes to clips, on the device.
        device: where the codec is.
    """
    codes, decoded, rates = [], [], []
    parts = clips.split(BATCH_CLIPS)
    decode(encode(parts[0].to(device)))
    for part in tqdm(parts, "encoding and decoding", unit="batch", leave=False):
        there = part.to(device)
        began = _now(device)
        found = encode(there)
        encoded = _now(device)
        back = decode(found)
        done = _now(device)
        num_frames = part.shape[0] * part.shape[1]
        rates.append((num_frames / (encoded - began), num_frames / (done - encoded)))
        codes.append(found.cpu())
        decoded.append(back.cpu())
    # On a machine that has other work too, a mean would be of that work.
    encoded_per_second, decoded_per_second = np.median(rates, axis=0).tolist()
    return Coded(torch.cat(codes).long().numpy(), torch.cat(decoded), encoded_per_second, decoded_per_second)


def measure_codes(pyramid: Pyramid, coded: Coded) -> dict[str, Any]:
    """Tokens and bits per frame, how every scale uses its entries, and speed.

    `bits_per_frame` has both of `worldmodel.evaluation.entropy`'s models; they learn while they code, so fewer clips
    cost a little more for each.
    """
    codes = coded.codes
    num_frames = codes.shape[0] * codes.shape[1]
    bits = {model: coded_bits(codes, pyramid, model) for model in ("alone", "in_time")}
    statistics = CodeStatistics(pyramid)
    statistics.add(codes)
    by_scale = [
        {**summary, "usage": round(summary["used"] / summary["vocabulary"], 4)}
        | {f"bits_per_frame_{model}": round(each[scale] / num_frames, 2) for model, each in bits.items()}
        for scale, summary in enumerate(statistics.summary())
    ]
    return {
        "tokens_per_frame": codes.shape[2],
        "bits_per_frame": {model: sum(each) / num_frames for model, each in bits.items()},
        "scales": by_scale,
        "encoded_frames_per_second": coded.encoded_per_second,
        "decoded_frames_per_second": coded.decoded_per_second,
    }


def mean_over_videos(values: Float[np.ndarray, " clip"], videos: Sequence[str], seed: int) -> dict[str, float]:
    """Mean with its 95 % interval; clips of one video are alike, so videos are resampled (clips where there is one).

    Args:
        values: one for each clip.
        videos: the video of each clip.
        seed: of the bootstrap.

    Returns:
        mean, low and high; the mean is that of the videos' means.
    """
    names = np.array(videos)
    means = np.array([values[names == name].mean() for name in dict.fromkeys(videos)], np.float64)
    units = means if len(means) > 1 else values.astype(np.float64)
    low, high = bootstrap_interval(units, np.random.default_rng(seed))
    return {"mean": float(units.mean()), "low": low, "high": high}


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
