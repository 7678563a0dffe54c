import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from streams.addresses import find_videos
from streams.videos import VideoSource
from tests.fake_codecs import make_videos
from tests.worldmodel.tiny import MODEL, PICTURE
from tests.worldmodel.whole_run import CLIP_FRAMES, LOADER, TRAINING, WholeRun
from worldmodel import commands
from worldmodel.cache.build import BuildOptions, encode_videos
from worldmodel.cache.encoding import clip_settings
from worldmodel.cli import main
from worldmodel.codecs.hybrid import PictureHybrid
from worldmodel.codecs.store import fingerprint_of, load_codec
from worldmodel.commands import train_codec, train_world
from worldmodel.config import read_settings, write_settings
from worldmodel.errors import CheckpointError, MediaError, SettingsError
from worldmodel.model import WorldModel
from worldmodel.objective import WorldObjective
from worldmodel.run import SETTINGS, load_codecs
from worldmodel.settings import HybridSettings, TokenizerSettings
from worldmodel.training import checkpoint
from worldmodel.training.signals import StopRequest


def events_of(run: Path) -> EventAccumulator:
    events = EventAccumulator(str(next(run.rglob("events.out*")).parent))
    events.Reload()
    return events


def test_a_codec_is_frozen_when_its_run_ends(whole_run: WholeRun):
    for kind, run in (("picture", whole_run.picture), ("sound", whole_run.sound)):
        codec = load_codec(run)
        assert codec.kind == kind
        weights, about = checkpoint.load_weights(run)
        assert about["step"] == TRAINING.steps
        for name, tensor in codec.state_dict().items():
            assert torch.equal(tensor, weights[f"codec.{name}"]), name
    tags = events_of(whole_run.picture).Tags()
    assert {"still_codes_that_change", "psnr", "perplexity/scale_2"} <= set(map(last_words, tags["scalars"]))
    assert "images" in tags
    assert len(events_of(whole_run.sound).Tags()["audio"]) == 2


def last_words(tag: str) -> str:
    """A tag without the prefix that the meter gives it."""
    return tag.removeprefix("train/")


def test_a_world_shows_rollouts_scalars_and_sound(whole_run: WholeRun):
    tags = events_of(whole_run.world).Tags()
    names = set(map(last_words, tags["scalars"]))
    heads = {f"{head}/{what}" for head in ("flow", "speed", "arrow_of_time") for what in ("loss", "score", "chance")}
    assert heads | {"next/bits_per_frame", "next/bits_changed", "loss"} <= names
    assert {"rollout/film_strip", "reconstruction/film_strip"} <= set(tags["images"])
    assert "rollout/sound" in tags["audio"]


def test_six_steps_are_three_a_stop_and_three_to_the_bit(
    whole_run: WholeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_signals: None
):
    run, stop = tmp_path / "halves", StopRequest()
    # Not the shared run: what other tests load into this process in between can change the last bit of a sum.
    train_world(replace(whole_run.settings, run=str(tmp_path / "whole")))
    forward, calls = WorldObjective.forward, []

    def counted(self: WorldObjective, batch: object) -> object:
        calls.append(self.training)
        if sum(calls) == 3:
            stop.handle(signal.SIGUSR1)
        return forward(self, batch)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(WorldObjective, "forward", counted)
        result = train_world(replace(whole_run.settings, run=str(run)), stop=stop)
    assert (result.step, result.interrupted) == (3, True)
    # The other half reads its data in a worker process.
    assert main(["train", "--resume", str(run), "--loader.num_workers", "1"]) == 0
    name = f"checkpoints/step_{TRAINING.steps:08d}/weights.safetensors"
    whole, halves = load_file(tmp_path / "whole" / name), load_file(run / name)
    assert whole.keys() == halves.keys()
    assert not [key for key, tensor in whole.items() if not torch.equal(tensor, halves[key])]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_training_from_videos_and_from_their_cache_is_the_same_to_the_bit(
    num_workers: int, whole_run: WholeRun, tmp_path: Path
):
    loader = replace(LOADER, num_workers=num_workers)
    for settings, name in ((whole_run.settings, "cache"), (whole_run.settings_from_videos, "videos")):
        train_world(replace(settings, run=str(tmp_path / name), loader=loader))
    (cached, _), (made, about) = (checkpoint.load_weights(tmp_path / name) for name in ("cache", "videos"))
    assert cached.keys() == made.keys()
    assert not [name for name, tensor in cached.items() if not torch.equal(tensor, made[name])]
    assert about["settings"]["videos"] == str(whole_run.videos)
    losses = [[event.value for event in events_of(tmp_path / name).Scalars("loss")] for name in ("cache", "videos")]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2
    assert {"rollout/film_strip", "reconstruction/film_strip"} <= set(events_of(tmp_path / "videos").Tags()["images"])


def test_a_run_from_videos_that_was_stopped_goes_on_to_the_bit_in_any_precision_and_sharded(
    whole_run: WholeRun, tmp_path: Path, kept_signals: None
):
    training = replace(whole_run.settings.training, zero_stage=3, precision="bf16")
    train_world(replace(whole_run.settings_from_videos, run=str(tmp_path / "whole"), training=training))
    shutil.copytree(tmp_path / "whole", tmp_path / "halves")
    shutil.rmtree(tmp_path / "halves" / "checkpoints" / "step_00000006")
    assert main(["train", "--resume", str(tmp_path / "halves")]) == 0
    whole, halves = (checkpoint.load_weights(tmp_path / name)[0] for name in ("whole", "halves"))
    assert not [name for name, tensor in whole.items() if not torch.equal(tensor, halves[name])]


@pytest.mark.parametrize("name", ["settings", "settings_from_videos"])
def test_codecs_that_change_while_a_world_trains_stop_it_at_the_next_checkpoint(
    name: str, whole_run: WholeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings, kept = getattr(whole_run, name), []
    opened = commands.open_data
    monkeypatch.setattr(commands, "open_data", lambda settings, codecs: kept.extend(codecs) or opened(settings, codecs))
    forward, calls = WorldObjective.forward, []

    def changing(self: WorldObjective, batch: object) -> object:
        calls.append(1)
        if len(calls) == 4:
            next(kept[0].encoder.parameters())[0, 0] += 1e-6
        return forward(self, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(WorldObjective, "forward", changing)
    with pytest.raises(CheckpointError, match="the weights of picture codec .* have changed in memory while a world"):
        train_world(replace(settings, run=str(tmp_path / "run")))
    assert [path.name for path in sorted((tmp_path / "run" / "checkpoints").glob("step_*"))] == ["step_00000003"]


@pytest.mark.parametrize("kind", ["cache", "videos"])
def test_a_run_does_not_go_on_with_data_that_have_changed(kind: str, whole_run: WholeRun, tmp_path: Path):
    data = tmp_path / kind
    shutil.copytree(getattr(whole_run, kind), data)
    settings = whole_run.settings if kind == "cache" else whole_run.settings_from_videos
    settings = replace(settings, run=str(tmp_path / "run"), **{kind: str(data)})  # type: ignore[arg-type]
    settings = replace(settings, training=replace(settings.training, steps=1))
    train_world(settings)
    shutil.copytree(data, tmp_path / "before")
    if kind == "cache":
        codecs = [load_codec(whole_run.picture), load_codec(whole_run.sound)]
        source = VideoSource(find_videos(whole_run.videos)[1:], clip_settings(codecs, CLIP_FRAMES))
        encode_videos(source, codecs, data, BuildOptions(0.3, thumbnail_side=16, progress=False, overwrite=True))
    else:
        next(data.glob("*.mp4")).unlink()
    longer = replace(settings, training=replace(settings.training, steps=2))
    with pytest.raises(CheckpointError, match=rf"what is at {data} has changed since, so the run cannot go on where"):
        train_world(longer, resume=True)
    shutil.rmtree(data)
    (tmp_path / "before").rename(data)
    assert train_world(longer, resume=True).step == 2


@pytest.mark.parametrize("stage", [1, 3])
def test_a_world_trains_sharded_and_in_bf16(stage: Literal[1, 3], whole_run: WholeRun, tmp_path: Path):
    training = replace(whole_run.settings.training, zero_stage=stage, precision="bf16")
    result = train_world(replace(whole_run.settings, run=str(tmp_path / "run"), training=training))
    assert (result.step, result.interrupted) == (TRAINING.steps, False)
    weights, _ = checkpoint.load_weights(tmp_path / "run")
    fp32, _ = checkpoint.load_weights(whole_run.world)
    name = "model.trunk.blocks.0.attention.query.weight"
    assert weights[name].dtype == torch.float32
    assert 0 < (weights[name] - fp32[name]).abs().max() < 0.5 * fp32[name].abs().max()


def test_another_optimizer_does_not_resume_a_run(whole_run: WholeRun, tmp_path: Path):
    shutil.copytree(whole_run.world, tmp_path / "run")
    settings = replace(whole_run.settings, run=str(tmp_path / "run"), training=TRAINING)
    with pytest.raises(CheckpointError, match="optimizer is muon there and adamw here"):
        train_world(settings, resume=True)


def test_two_processes_on_one_machine_train_a_world_and_resume_it(whole_run: WholeRun, tmp_path: Path):
    run, config = tmp_path / "run", tmp_path / "config.yaml"
    write_settings(replace(whole_run.settings, run=str(run)), config)

    def torchrun(*arguments: str) -> str:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "worldmodel", "train"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, *launcher, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert "processes: 2" in torchrun("--config", str(config))
    torchrun("--resume", str(run), "--training.steps", "8")
    _, about = checkpoint.load_weights(run)
    assert (about["step"], about["position"]) == (8, 8 * LOADER.batch_size)


def test_a_run_holds_copies_of_its_codecs_and_needs_the_others_no_longer(whole_run: WholeRun, tmp_path: Path):
    for kind in ("picture", "sound"):
        assert fingerprint_of(whole_run.world / "codec" / kind) == fingerprint_of(getattr(whole_run, kind))
    about = json.loads(next(whole_run.world.rglob("checkpoint.json")).read_text())
    assert about["identity"]["codecs"] == {
        kind: fingerprint_of(getattr(whole_run, kind)) for kind in ("picture", "sound")
    }


def test_no_sound_codec_is_made_of_silent_videos(whole_run: WholeRun, tmp_path: Path):
    make_videos(tmp_path / "silent", num_videos=1, silent=(0,))
    settings = replace(whole_run.codec_settings("sound", tmp_path / "run"), videos=str(tmp_path / "silent"))
    with pytest.raises(MediaError, match="none of the 1 videos in .* has sound"):
        train_codec(settings)
    assert not (tmp_path / "run").exists()


def test_a_codec_is_trained_on_a_mixture_of_folders(whole_run: WholeRun, tmp_path: Path):
    make_videos(tmp_path / "more", num_videos=1)
    weights = {str(whole_run.videos): 1.0, str(tmp_path / "more"): 2.0}
    settings = replace(whole_run.codec_settings("picture", tmp_path / "run"), videos=weights)
    train_codec(settings)
    assert load_codec(tmp_path / "run").kind == "picture"
    assert read_settings(TokenizerSettings, tmp_path / "run" / SETTINGS) == settings


def test_a_hybrid_codec_is_fitted_and_trained_and_resumed_and_the_world_model_takes_it(
    whole_run: WholeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    quantizer = replace(PICTURE.quantizer, grids=((1, 1), (2, 2)), dim=8)
    hybrid = HybridSettings(luma_frequencies=6, chroma_frequencies=1, whitening=1.0, quantizer=quantizer)
    settings = replace(
        whole_run.codec_settings("picture", tmp_path / "run"),
        family="hybrid",
        hybrid=hybrid,
        zoom=1.5,
        training=replace(TRAINING, checkpoint_every=2),
    )
    train_codec(settings)
    assert "coefficients are whitened by what they are in 16 clips" in capsys.readouterr().out
    codec, _ = load_codecs([tmp_path / "run"])
    assert isinstance(codec, PictureHybrid)
    assert codec.settings == hybrid
    assert (codec.scale > 0).all()
    assert len(set(codec.scale.tolist())) > 1
    before = codec.scale.clone()
    with pytest.raises(CheckpointError, match="is of another model: picture.whitening is 1.0 there and 0.5 here"):
        train_codec(replace(settings, hybrid=replace(hybrid, whitening=0.5)), resume=True)
    train_codec(replace(settings, training=replace(TRAINING, steps=8)), resume=True)
    again, _ = load_codecs([tmp_path / "run"])
    assert isinstance(again, PictureHybrid)
    assert torch.equal(again.scale, before)
    model = WorldModel(MODEL, again.quantizer, None)
    assert model.num_codes == again.pyramid.num_codes


def test_a_codec_learns_from_parts_of_pictures_and_goes_on_to_the_bit(whole_run: WholeRun, tmp_path: Path):
    settings = replace(whole_run.codec_settings("picture", tmp_path / "whole"), family="hybrid", zoom=1.5)
    settings = replace(
        settings,
        hybrid=HybridSettings(quantizer=replace(PICTURE.quantizer, grids=((1, 1), (2, 2)), dim=16, bit_price=0.01)),
    )
    train_codec(settings)
    codec = load_codec(tmp_path / "whole")
    assert (codec.clips.height, codec.clips.width) == (16, 16)
    train_codec(replace(settings, run=str(tmp_path / "pictures"), zoom=1.0))
    assert fingerprint_of(tmp_path / "pictures") != codec.fingerprint
    shutil.copytree(tmp_path / "whole", tmp_path / "halves")
    shutil.rmtree(tmp_path / "halves" / "checkpoints" / f"step_{TRAINING.steps:08d}")
    assert main(["tokenizer", "--resume", str(tmp_path / "halves")]) == 0
    assert fingerprint_of(tmp_path / "halves") == codec.fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"zoom": 0.5}, "zoom=0.5 is out of range: it must be 1 or more"),
        ({"zoom": float("nan")}, "zoom=nan is out of range"),
        ({"zoom": 1.5, "kind": "sound"}, "zoom=1.5 is for training on pictures: leave it out with kind=sound"),
    ],
)
def test_a_zoom_that_cuts_nothing_out_is_refused(
    changes: dict[str, Any], message: str, whole_run: WholeRun, tmp_path: Path
):
    settings = whole_run.codec_settings("picture", tmp_path / "run")
    with pytest.raises(SettingsError, match=message):
        train_codec(replace(settings, **changes))
    assert not (tmp_path / "run").exists()


def test_a_codec_without_checkpoint_is_not_resumed(whole_run: WholeRun, tmp_path: Path):
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        train_codec(whole_run.codec_settings("picture", tmp_path / "run"), resume=True)


def test_muon_is_refused_for_a_codec_before_anything_is_written(whole_run: WholeRun, tmp_path: Path):
    settings = whole_run.codec_settings("picture", tmp_path / "run")
    with pytest.raises(
        SettingsError, match="optimizer=muon is for the world model's transformers: a codec needs adamw"
    ):
        train_codec(replace(settings, training=replace(TRAINING, optimizer="muon")))
    with pytest.raises(SettingsError, match="compile is for the world model's transformers: a codec has none"):
        train_codec(replace(settings, training=replace(TRAINING, compile=True)))
    assert not (tmp_path / "run").exists()
