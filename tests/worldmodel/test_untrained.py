from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from streams.clip import to_float, to_uint8
from streams.videos import VideoSource
from tests.fake_codecs import make_videos
from tests.worldmodel.tiny import MODEL
from tests.worldmodel.tiny_run import CLIPS
from tests.worldmodel.whole_run import LOADER, TRAINING
from worldmodel.cache.build import BuildOptions, encode_videos
from worldmodel.cache.checking import check_codes
from worldmodel.cache.encoding import clip_settings
from worldmodel.cache.latents import LatentCache
from worldmodel.cli import main
from worldmodel.codecs.dct import PictureDCT
from worldmodel.codecs.store import fingerprint_of, load_codec
from worldmodel.commands import train_codec, train_world
from worldmodel.config import read_settings
from worldmodel.errors import CheckpointError, SettingsError
from worldmodel.evaluation.metrics import psnr
from worldmodel.rollouts.checking import CODES
from worldmodel.rollouts.imagination import imagine_with
from worldmodel.rollouts.rollout_codes import load_codes
from worldmodel.run import load_run
from worldmodel.settings import (
    DctSettings,
    EncodingSettings,
    HeadSettings,
    RolloutSettings,
    TokenizerSettings,
    TrainSettings,
)
from worldmodel.untrained import write_codec


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    make_videos(folder)
    return folder


@pytest.fixture(scope="module")
def run(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run") / "dct"
    write_codec(settings_of(videos, run))
    return run


def settings_of(videos: Path, run: Path) -> TokenizerSettings:
    return TokenizerSettings(str(videos), str(run), family="dct", clips=CLIPS, dct=DctSettings(qualities=(30,)))


def test_the_command_writes_a_codec_and_says_what_it_does(
    videos: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    size = ["--clips.height=16", "--clips.width=16", "--clips.sample_hz=8000", "--clips.num_frames=16"]
    quality = ["--dct.qualities=[30]", "--loader.num_workers=0"]
    arguments = ["--family", "dct", "--videos", str(videos), "--run", str(tmp_path / "run"), *size, *quality]
    assert main(["tokenizer", *arguments]) == 0
    said = capsys.readouterr().out
    assert "bits per frame as JPEG codes them" in said
    assert "nothing had to be fitted or trained" in said
    assert fingerprint_of(tmp_path / "run") == fingerprint_of(run) == load_codec(run).fingerprint
    assert read_settings(TokenizerSettings, tmp_path / "run" / "settings.yaml").dct == DctSettings(qualities=(30,))
    assert main(["tokenizer", *arguments]) == 2
    assert "already has a codec: choose another folder, or delete it" in capsys.readouterr().err


def test_a_cache_holds_its_codes_plane_by_plane(videos: Path, run: Path, tmp_path: Path):
    codec = load_codec(run)
    assert isinstance(codec, PictureDCT)
    source = VideoSource(sorted(videos.glob("*.mp4")), clip_settings([codec], 8))
    info = encode_videos(source, [codec], tmp_path / "cache.zarr", BuildOptions(heldout=0.3, progress=False))
    assert info is not None
    cache = LatentCache(tmp_path / "cache.zarr")
    assert cache.info.pyramids["picture"] == codec.pyramid
    clip = source.read(0, np.random.default_rng(0))
    codes = codec.encode(to_float(clip.frames)[None])[0]
    assert np.array_equal(cache.rows["picture"][0], codes.numpy())
    assert check_codes(cache, [codec], 2, np.random.default_rng(0)).shares == {"picture": 1}
    assert [row["planes"] for row in info.statistics["picture"]] == [scale.planes for scale in codec.pyramid.scales]
    assert info.statistics["still"]["num_still"] > 0


def test_the_world_model_is_trained_on_its_codes_and_imagines_more(videos: Path, run: Path, tmp_path: Path):
    world, out = tmp_path / "world", tmp_path / "out.mp4"
    settings = TrainSettings(
        codecs=[str(run)],
        run=str(world),
        videos=str(videos),
        num_frames=4,
        encoding=EncodingSettings(8, 0.3, 16),
        loader=LOADER,
        model=replace(MODEL, patch=1),
        heads=HeadSettings(flow=1.0, speed=0.0, arrow_of_time=0.0, correspondence=0.0),
        training=replace(TRAINING, steps=2, checkpoint_every=2, report_every=1),
    )
    train_world(settings)
    loaded = load_run(world)
    assert isinstance(loaded.picture, PictureDCT)
    rollout = RolloutSettings(str(world), str(out), str(videos / "0.mp4"), context_frames=2, horizon=2)
    imagine_with(loaded, rollout, torch.device("cpu"), progress=False)
    scales = loaded.model.decoder.scales
    codes = load_codes(out.with_suffix(CODES), loaded.fingerprint, scales).codes
    assert codes.shape == (1, 4, loaded.picture.pyramid.num_codes)
    decoded = to_uint8(loaded.picture.decode(codes))
    film = VideoSource([out], replace(CLIPS, num_frames=4, height=256, width=256)).read(0, np.random.default_rng(0))
    assert psnr(decoded[0].repeat_interleave(16, 2).repeat_interleave(16, 3), film.frames).min() > 25


def test_what_is_not_trained_is_neither_resumed_nor_trained(videos: Path, run: Path, tmp_path: Path):
    settings = settings_of(videos, tmp_path / "run")
    with pytest.raises(CheckpointError, match="a codec of family dct is not trained, so there is nothing to resume"):
        write_codec(settings, resume=True)
    with pytest.raises(SettingsError, match="family=dct is not trained"):
        train_codec(settings)
    with pytest.raises(SettingsError, match="family=hybrid is trained"):
        write_codec(replace(settings, family="hybrid"))
    with pytest.raises(SettingsError, match="family=dct is of pictures: kind=sound has vq alone"):
        write_codec(replace(settings, kind="sound"))
    with pytest.raises(SettingsError, match="zoom=1.5 is for training on pictures: leave it out with family=dct"):
        write_codec(replace(settings, zoom=1.5))
    with pytest.raises(SettingsError, match="frames of 24x16 are not whole blocks"):
        write_codec(replace(settings, clips=replace(CLIPS, height=24)))
    assert not (tmp_path / "run").exists()


def test_its_weights_are_tables_and_no_learning_touches_them(run: Path):
    codec = load_codec(run)
    assert not list(codec.parameters())
    assert [name for name, _ in codec.named_buffers() if name in codec.state_dict()] == ["tables"]
    assert torch.equal(codec.state_dict()["tables"][0, 0, :3], torch.tensor([27, 18, 20]))
