"""What `worldmodel tokenizer` and `worldmodel train` do: build the objective and its data, and run the loop."""

import copy
import dataclasses
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from streams.clip import Batch, to_float, to_uint8
from streams.loader import Loader
from worldmodel.cache.latents import CodeBatch
from worldmodel.checks import check_family, check_training, check_videos, settings_to_blame
from worldmodel.codecs.dct import PictureDCT
from worldmodel.codecs.hybrid import PictureHybrid
from worldmodel.codecs.objective import PictureObjective, SoundObjective
from worldmodel.codecs.sound import SoundVQ
from worldmodel.codecs.store import FrozenCodecs, build_codec, save_codec
from worldmodel.config import write_settings
from worldmodel.data import first_batch, micro_batches, open_clips, open_data
from worldmodel.evaluation.previews import preview_pictures
from worldmodel.objective import WorldObjective
from worldmodel.run import SETTINGS, LoadedRun, begin_run, check_beginning, describe_run, write_together
from worldmodel.settings import TokenizerSettings, TrainSettings
from worldmodel.training import cluster
from worldmodel.training.checkpoint import Description
from worldmodel.training.loop import TrainResult, train
from worldmodel.training.owner import owned
from worldmodel.training.report import Report
from worldmodel.training.signals import StopRequest

PREVIEW_HORIZON = 16
NUM_FITTED = 16  # clips that a hybrid codec's coefficients are measured on


def train_codec(settings: TokenizerSettings, resume: bool = False, stop: StopRequest | None = None) -> TrainResult:
    """Train one codec from videos; when the last step is done, freeze it into the run's folder.

    Raises:
        MediaError: no video can be used, or none has sound though a sound codec is wanted.
        SettingsError: a setting does not fit, or the codec is of a family that is not trained.
    """
    check_training(settings.training, settings.loader)
    check_videos(settings.videos)
    check_family(settings, trained=True)
    cluster.start()
    with owned(Path(settings.run)):
        return _train_codec(settings, resume, stop)


def _train_codec(settings: TokenizerSettings, resume: bool, stop: StopRequest | None) -> TrainResult:
    ranks, run = cluster.find_ranks(), Path(settings.run)
    clips = open_clips(settings)
    torch.manual_seed(settings.training.seed)
    with settings_to_blame():
        codec = build_codec(settings.kind, settings.codec, settings.clips)
    assert not isinstance(codec, PictureDCT)
    sound = isinstance(codec, SoundVQ)
    objective = SoundObjective(codec) if sound else PictureObjective(codec, settings.picture_loss)
    identity = {settings.kind: dataclasses.asdict(settings.codec), "optimizer": settings.training.optimizer}
    description = Description(settings=dataclasses.asdict(settings), identity=identity)
    check_beginning(run, resume, description)
    write_together(run, lambda: write_settings(settings, run / SETTINGS))
    preview_batch = first_batch(clips)
    loader = micro_batches(settings.loader, settings.training.accumulate)
    if isinstance(codec, PictureHybrid) and not resume:
        fitted = first_batch(clips, NUM_FITTED).frames
        codec.fit(to_float(fitted).flatten(0, 1))
        print(f"coefficients are whitened by what they are in {len(fitted)} clips")
    result = train(
        objective,
        lambda position: Loader(clips, loader, settings.training.seed, position, ranks.rank, ranks.num_ranks),
        settings.training,
        settings.loader.batch_size,
        run,
        description,
        lambda module, report, step: _show_codec(module, preview_batch, report, step),
        resume,
        stop,
    )
    if not result.interrupted and cluster.is_main():
        print(f"codec {save_codec(run, codec.cpu())} frozen in {run}")
    return result


def train_world(settings: TrainSettings, resume: bool = False, stop: StopRequest | None = None) -> TrainResult:
    """Train the world model from a latent cache or straight from videos.

    Raises:
        CacheError: the cache is missing, damaged or of other codecs.
        MediaError: the videos cannot be used.
    """
    cluster.start()
    with owned(Path(settings.run)):
        return _train_world(settings, resume, stop)


def _train_world(settings: TrainSettings, resume: bool, stop: StopRequest | None) -> TrainResult:
    objective, picture, sound = begin_run(settings, resume)
    # Copies: the objective holds the codecs' quantizers, and its engine shards what it holds.
    picture = copy.deepcopy(picture).to(cluster.device())
    sound = None if sound is None else copy.deepcopy(sound).to(cluster.device())
    codecs = [codec for codec in (picture, sound) if codec is not None]
    frozen, data = FrozenCodecs(codecs), open_data(settings, codecs)
    made_of = {"address": str(settings.cache or settings.videos), "content": data.content}
    description = replace(describe_run(settings, picture, sound), data=made_of)

    def show(module: nn.Module, report: Report, step: int) -> None:
        assert isinstance(module, WorldObjective)
        _show_world(LoadedRun(settings, module, picture, sound, step), data.preview, report, step)

    return train(
        objective,
        data.make_loader,
        settings.training,
        settings.loader.batch_size,
        Path(settings.run),
        description,
        show,
        resume,
        stop,
        frozen.check,
    )


def _show_codec(objective: nn.Module, batch: Batch | CodeBatch, report: Report, step: int) -> None:
    assert isinstance(batch, Batch)
    device = next(objective.parameters()).device
    batch = batch.to(device)
    if isinstance(objective, PictureObjective):
        clips = to_float(batch.frames)
        rebuilt = to_uint8(objective.codec.decode(objective.codec.encode(clips)))
        report.film_strip("truth_above_reconstruction", torch.cat((batch.frames, rebuilt))[:, :8], step)
        report.scalars({name: float(value) for name, value in objective.flicker(batch).items()}, step)
    elif isinstance(objective, SoundObjective) and isinstance(objective.codec, SoundVQ):
        heard = batch.sound[batch.has_sound][:1]
        if len(heard):
            rebuilt = objective.codec.decode(objective.codec.encode(heard))
            report.sound("sound/truth", heard.flatten(), step, objective.codec.clips.sample_hz)
            report.sound("sound/reconstruction", rebuilt.flatten(), step, objective.codec.clips.sample_hz)


def _show_world(coded: LoadedRun, batch: Batch | CodeBatch, report: Report, step: int) -> None:
    """Rollouts of held-out clips; what the codecs make of the truth is the row above them."""
    assert isinstance(batch, CodeBatch)
    device = next(coded.objective.parameters()).device
    preview = preview_pictures(coded, batch.to(device), PREVIEW_HORIZON)
    clips = coded.picture.clips
    report.image("rollout/film_strip", preview.strip, step)
    report.image("reconstruction/film_strip", preview.reconstruction, step)
    report.video("rollout/video", preview.frames, step, clips.frames_per_second)
    if preview.sound is not None:
        report.sound("rollout/sound", preview.sound, step, clips.sample_hz)
