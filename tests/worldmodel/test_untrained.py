from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from streams.clip import to_float
from streams.videos import VideoSource
from tests.fake_codecs import make_videos
from tests.worldmodel.tiny_run import CLIPS
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
from worldmodel.run import load_codecs
from worldmodel.settings import DctSettings, TokenizerSettings, TrainSettings
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


def test_the_world_model_refuses_codes_of_several_planes(videos: Path, run: Path, tmp_path: Path):
    message = "codec of family dct .* has scales of several planes, .* one code at a place: give a codec of family vq"
    with pytest.raises(SettingsError, match=message):
        load_codecs([run])
    with pytest.raises(SettingsError, match=message):
        train_world(TrainSettings(codecs=[str(run)], run=str(tmp_path / "world"), videos=str(videos)))
    assert not (tmp_path / "world").exists()


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
    with pytest.raises(SettingsError, match="frames of 24x16 are not whole blocks"):
        write_codec(replace(settings, clips=replace(CLIPS, height=24)))
    assert not (tmp_path / "run").exists()


def test_its_weights_are_tables_and_no_learning_touches_them(run: Path):
    codec = load_codec(run)
    assert not list(codec.parameters())
    assert [name for name, _ in codec.named_buffers() if name in codec.state_dict()] == ["tables"]
    assert torch.equal(codec.state_dict()["tables"][0, 0, :3], torch.tensor([27, 18, 20]))
