"""`worldmodel train --dry_run`: what a training would need, without training anything that stays."""

import copy
import json
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta

from torch import nn

from worldmodel.cache.encoding import by_kind, clip_settings, thumbnail_size
from worldmodel.cache.info import CacheInfo
from worldmodel.cache.latents import LatentCache
from worldmodel.checks import settings_to_blame
from worldmodel.codecs.store import Codec
from worldmodel.data import open_data
from worldmodel.objective import WorldObjective
from worldmodel.run import Prepared, prepare_run
from worldmodel.settings import TrainSettings
from worldmodel.training import cluster, randomness
from worldmodel.training.engine import Engine, deepspeed_settings
from worldmodel.training.memory import Kept, state_bytes
from worldmodel.training.rehearsal import Rehearsal, rehearse

MORE_RANKS = (8, 64, 512)  # numbers of processes for which the state's share is told as well


def dry_run(settings: TrainSettings) -> list[str]:
    """Makes a few steps of a run, of which nothing is written, and tells what the whole training would need.

    Every process calls it together; the lines are the same on all.

    Raises:
        CacheError: the cache cannot be used.
        MediaError: the videos cannot be used.
        SettingsError: a setting does not fit.
    """
    ranks, training, size = cluster.start(), settings.training, settings.loader.batch_size
    made = prepare_run(settings)
    # Copies: the objective holds the codecs' quantizers, and its engine shards what it holds.
    given = [codec for codec in (made.picture, made.sound) if codec is not None]
    codecs = [copy.deepcopy(codec).to(cluster.device()) for codec in given]
    with settings_to_blame():
        dictionary = deepspeed_settings(training, size, ranks.num_ranks)
    lines = ["DeepSpeed:", json.dumps(dictionary, indent=2), *parameter_lines(made.objective)]
    trained = sum(weight.numel() for weight in made.objective.parameters() if weight.requires_grad)
    hidden = sum(weight.numel() for weight in made.objective.hidden_matrices())
    sharing = training.num_sharing
    more = (number for number in MORE_RANKS if number > ranks.num_ranks and number % sharing == 0)
    cuts = [ranks.num_ranks, *more]
    state = {number: state_bytes(trained, hidden, training, number) for number in cuts}
    data, reader = open_data(settings, codecs), cluster.data_ranks(training.num_sharing)[0]
    engine = Engine(made.objective, training, size)
    randomness.seed(training.seed, reader)
    parts = phases(settings)
    with closing(data.make_loader(0)) as loader:
        found = []
        for start, _ in parts:
            made.objective.share_done = start
            found.append(rehearse(engine, loader))
    engine.close()
    lines += memory_lines(state, found, engine.device.type)
    return [*lines, *data_lines(settings, made, codecs), *speed_lines(settings, codecs, parts, found)]


def phases(settings: TrainSettings) -> list[tuple[float, float]]:
    """Where the parts of a run begin in which a step costs another time, and how long they are, as shares of it."""
    own, begin = settings.model.own_context, settings.model.own_context_from
    parts = [(0.0, begin), (begin, 1 - begin)] if own > 0 else [(0.0, 1.0)]
    return [part for part in parts if part[1] > 0]


def parameter_lines(objective: WorldObjective) -> list[str]:
    """Trained weights of every part, and the frozen codebooks."""
    model = objective.model
    parts: dict[str, nn.Module] = {"embeddings": model.embeddings, "trunk": model.trunk, "decoder": model.decoder}
    parts |= {f"head {name}": head for name, head in objective.heads.items()}
    trained = {name: sum(weight.numel() for weight in part.parameters()) for name, part in parts.items()}
    frozen = sum(value.numel() for value in model.quantizers.state_dict().values())
    lines = [f"parameters: {sum(trained.values()):,} trained, and {frozen:,} numbers of the codecs' codebooks"]
    return [*lines, *(f"  {name}: {count:,}" for name, count in trained.items())]


def memory_lines(state: dict[int, dict[str, Kept]], found: Sequence[Rehearsal], device: str) -> list[str]:
    """Kinds of memory in rows; this number of processes, and others, in columns."""
    here = next(iter(state))
    kinds = state[here]
    lines = [f"memory of each process (of {', '.join(map(str, state))} processes):"]
    for kind in kinds:
        where = "in the host's memory" if kinds[kind].host and not kinds[kind].device else "on the device"
        cuts = ", ".join(spelled(max(one[kind].device, one[kind].host)) for one in state.values())
        lines.append(f"  {kind}, {where}: {cuts}")
    kept = max(one.activation_bytes for one in found)
    totals = [sum(one.device for one in each.values()) + kept for each in state.values()]
    measured = "the process's largest" if device == "cpu" else "the GPU's largest"
    return [
        *lines,
        f"  activations of a micro-batch, measured: {spelled(kept)}",
        f"  on the device in all: {', '.join(map(spelled, totals))}",
        f"  {measured} so far, measured: {spelled(max(one.peak_bytes for one in found))}",
    ]


def data_lines(settings: TrainSettings, made: Prepared, codecs: Sequence[Codec]) -> list[str]:
    """What a second of video is, and how much of the disk the cache takes."""
    rate = made.picture.clips.frames_per_second
    codes, tokens = made.objective.model.num_codes, made.objective.model.trunk.num_tokens
    lines = [f"a second of video: {rate:g} frames, {rate * codes:g} codes, {rate * tokens:g} tokens of the trunk"]
    if settings.cache is None:
        size = cache_info(settings, codecs).bytes_per_hour
        return [*lines, f"cache: none is read; one would take {spelled(size)} per hour of video"]
    cache = LatentCache(settings.cache)
    hours = cache.num_clips * cache.info.num_frames / cache.info.frames_per_second / 3600
    size = cache.info.bytes_per_hour
    return [*lines, f"cache: {spelled(cache.num_bytes)} for {hours:.3g} h of video, {spelled(size)} per hour"]


def cache_info(settings: TrainSettings, codecs: Sequence[Codec]) -> CacheInfo:
    """What a cache of the run's videos would say about itself."""
    clips = clip_settings(codecs, settings.encoding.clip_frames)
    return CacheInfo(
        fingerprints={kind: str(codec.fingerprint) for kind, codec in by_kind(codecs).items()},
        pyramids={kind: codec.pyramid for kind, codec in by_kind(codecs).items()},
        num_frames=clips.num_frames,
        frames_per_second=clips.frames_per_second,
        sample_hz=clips.sample_hz,
        thumbnail=thumbnail_size(clips, settings.encoding.thumbnail),
    )


def speed_lines(
    settings: TrainSettings, codecs: Sequence[Codec], parts: Sequence[tuple[float, float]], found: Sequence[Rehearsal]
) -> list[str]:
    """Steps per hour and seconds of video, as they were measured, and the time of all steps."""
    video = settings.loader.batch_size * settings.num_frames / codecs[0].clips.frames_per_second
    lines, steps, total = [f"a step: {video:.3g} s of video"], settings.training.steps, 0.0
    for (start, share), one in zip(parts, found, strict=True):
        since = f"from step {round(start * steps) + 1} on" if len(parts) > 1 else "all along"
        each = ", ".join(f"{seconds:.3g}" for seconds in one.seconds)
        lines.append(
            f"  {since}: {each} s, {3600 / one.step_seconds:.4g} steps per hour, "
            f"{video / one.step_seconds:.3g} s of video per second"
        )
        total += share * steps * one.step_seconds
    needed = timedelta(seconds=round(total))
    return [*lines, f"{steps} steps: {needed} (h:mm:ss), without checkpoints and previews"]


def spelled(num_bytes: float | int) -> str:
    """A size in words: 1.23 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(num_bytes) < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"
