import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.worldmodel.tiny import PICTURE, QUANTIZER, SOUND_QUANTIZER, tiny_quantizer
from tests.worldmodel.tiny_run import CLIPS, SOUND
from worldmodel.codecs.hybrid import PictureHybrid
from worldmodel.codecs.picture import PictureVQ
from worldmodel.codecs.sound import SoundVQ
from worldmodel.codecs.store import (
    DESCRIPTION,
    WEIGHTS,
    FrozenCodecs,
    build_codec,
    copy_codec,
    fingerprint_of,
    load_codec,
    save_codec,
)
from worldmodel.errors import CheckpointError, SettingsError
from worldmodel.settings import HybridSettings, PictureCodecSettings, SoundCodecSettings

KINDS = ("picture", "sound")


def made(kind: str) -> PictureVQ | SoundVQ:
    torch.manual_seed(0)
    codec = build_codec(kind, PICTURE if kind == "picture" else SOUND, CLIPS)
    assert isinstance(codec, PictureVQ | SoundVQ)
    codec.quantizer = tiny_quantizer() if kind == "picture" else tiny_quantizer(SOUND_QUANTIZER)
    return codec.eval()


def something(kind: str) -> torch.Tensor:
    if kind == "picture":
        return torch.rand(2, 3, 3, 16, 16) * 2 - 1
    return torch.randn(2, 3, CLIPS.samples_per_frame) * 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_a_codec_comes_back_with_the_same_codes(kind: str, tmp_path: Path):
    codec, given = made(kind), something(kind)
    fingerprint = save_codec(tmp_path / "run", codec)
    loaded = load_codec(tmp_path / "run")
    assert type(loaded) is {"picture": PictureVQ, "sound": SoundVQ}[kind]
    assert (loaded.settings, loaded.clips) == (codec.settings, codec.clips)
    codes = codec.encode(given)
    assert torch.equal(loaded.encode(given), codes)
    assert torch.equal(loaded.decode(codes), codec.decode(codes))
    assert loaded.fingerprint == fingerprint == fingerprint_of(tmp_path / "run")
    assert not loaded.training
    assert not [name for name, weight in loaded.named_parameters() if weight.requires_grad]


@pytest.mark.parametrize("kind", KINDS)
def test_the_fingerprint_is_that_of_the_content(kind: str, tmp_path: Path):
    prints = {save_codec(tmp_path / name, made(kind)) for name in ("one", "other")}
    assert len(prints) == 1
    copy_codec(tmp_path / "one", tmp_path / "deep" / "copy")
    assert fingerprint_of(tmp_path / "deep" / "copy") in prints
    assert {path.name for path in (tmp_path / "deep" / "copy").iterdir()} == {WEIGHTS, DESCRIPTION}
    for name in (WEIGHTS, DESCRIPTION):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "deep" / "copy" / name).read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_any_changed_weight_changes_the_fingerprint(kind: str, tmp_path: Path):
    save_codec(tmp_path, made(kind))
    weights, prints = load_file(tmp_path / WEIGHTS), {fingerprint_of(tmp_path)}
    for name in weights:
        changed = {key: value.clone() for key, value in weights.items()}
        changed[name].view(-1)[-1] += 1e-3
        save_file(changed, tmp_path / WEIGHTS)
        prints.add(fingerprint_of(tmp_path))
    assert len(prints) == 1 + len(weights)


def test_any_changed_setting_changes_the_fingerprint(tmp_path: Path):
    save_codec(tmp_path, made("picture"))
    path, prints = tmp_path / DESCRIPTION, {fingerprint_of(tmp_path)}
    description = json.loads(path.read_text())
    changes = [("clips", "frames_per_second"), ("clips", "reader"), ("settings", "channels")]
    for part, name in changes:
        changed = json.loads(path.read_text())
        changed[part][name] = "decord" if name == "reader" else 32
        path.write_text(json.dumps(changed))
        prints.add(fingerprint_of(tmp_path))
        path.write_text(json.dumps(description))
    # The margin is no weight, but other codes come of it.
    description["settings"]["quantizer"]["sticky_margin"] = 0.5
    path.write_text(json.dumps(description))
    prints.add(fingerprint_of(tmp_path))
    assert len(prints) == 2 + len(changes)


def test_a_description_without_a_family_is_of_vq(tmp_path: Path):
    save_codec(tmp_path, made("picture"))
    description = json.loads((tmp_path / DESCRIPTION).read_text())
    assert description.pop("family") == "vq"
    description["settings"].pop("jpeg_quality")  # as it was before there was one
    (tmp_path / DESCRIPTION).write_text(json.dumps(description))
    loaded = load_codec(tmp_path)
    assert type(loaded) is PictureVQ
    assert loaded.settings == PICTURE


def test_a_hybrid_of_before_there_were_refiners_has_none(tmp_path: Path):
    torch.manual_seed(0)
    settings = HybridSettings(refiner_channels=0, quantizer=replace(QUANTIZER, grids=((1, 1), (2, 2)), dim=16))
    codec = PictureHybrid(settings, CLIPS).eval()
    save_codec(tmp_path, codec)
    description = json.loads((tmp_path / DESCRIPTION).read_text())
    description["settings"].pop("refiner_channels")
    (tmp_path / DESCRIPTION).write_text(json.dumps(description))
    loaded = load_codec(tmp_path)
    assert isinstance(loaded, PictureHybrid)
    frames = something("picture")
    assert torch.equal(loaded.decode(loaded.encode(frames)), codec.decode(codec.encode(frames)))


def test_how_the_description_is_laid_out_does_not_matter(tmp_path: Path):
    fingerprint = save_codec(tmp_path, made("sound"))
    description = json.loads((tmp_path / DESCRIPTION).read_text())
    (tmp_path / DESCRIPTION).write_text(json.dumps(dict(reversed(description.items()))))
    assert fingerprint_of(tmp_path) == fingerprint


def test_a_description_without_a_kind_of_quantizer_is_of_learned_entries(tmp_path: Path):
    save_codec(tmp_path, made("picture"))
    description = json.loads((tmp_path / DESCRIPTION).read_text())
    del description["settings"]["quantizer"]["kind"]
    (tmp_path / DESCRIPTION).write_text(json.dumps(description))
    settings = load_codec(tmp_path).settings
    assert isinstance(settings, PictureCodecSettings)
    assert settings.quantizer.kind == "vq"


@pytest.mark.parametrize("kind", ["fsq", "bsq"])
def test_a_codec_on_a_lattice_comes_back_with_the_same_codes(kind: Literal["fsq", "bsq"], tmp_path: Path):
    codec, given = (
        build_codec("picture", replace(PICTURE, quantizer=replace(QUANTIZER, kind=kind)), CLIPS),
        something("picture"),
    )
    assert isinstance(codec, PictureVQ)
    for _ in range(3):
        codec.train()(given.flatten(0, 1))
    codec.eval()
    save_codec(tmp_path, codec)
    assert torch.equal(load_codec(tmp_path).encode(given), codec.encode(given))


def damage_nothing(run: Path) -> None:
    (run / DESCRIPTION).unlink()


def damage_json(run: Path) -> None:
    (run / DESCRIPTION).write_text("{")


def damage_format(run: Path) -> None:
    (run / DESCRIPTION).write_text(json.dumps(json.loads((run / DESCRIPTION).read_text()) | {"format": 99}))


def damage_kind(run: Path) -> None:
    (run / DESCRIPTION).write_text(json.dumps(json.loads((run / DESCRIPTION).read_text()) | {"kind": "smell"}))


def damage_settings(run: Path) -> None:
    description = json.loads((run / DESCRIPTION).read_text())
    description["settings"]["colour"] = 3
    (run / DESCRIPTION).write_text(json.dumps(description))


def damage_clips(run: Path) -> None:
    description = json.loads((run / DESCRIPTION).read_text())
    description["clips"]["height"] = 17
    (run / DESCRIPTION).write_text(json.dumps(description))


def damage_width(run: Path) -> None:
    description = json.loads((run / DESCRIPTION).read_text())
    description["settings"]["channels"] = 24
    (run / DESCRIPTION).write_text(json.dumps(description))


def damage_weights(run: Path) -> None:
    (run / WEIGHTS).write_bytes((run / WEIGHTS).read_bytes()[:1000])


def damage_no_weights(run: Path) -> None:
    (run / WEIGHTS).unlink()


def damage_a_tensor(run: Path) -> None:
    weights = load_file(run / WEIGHTS)
    weights.pop("encoder.1.weight")
    save_file(weights, run / WEIGHTS)


DAMAGES = [
    (damage_nothing, "holds no codec .codec.json is missing.: give a run of `worldmodel tokenizer`"),
    (damage_json, "codec.json is not a codec's description .*train the codec again"),
    (damage_format, "is not of codec format 1; train the codec again"),
    (damage_kind, "cannot be read as a codec .*train it again"),
    (damage_settings, "cannot be read as a codec .*colour.*train it again"),
    (damage_clips, "cannot be read as a codec .*17x16.*train it again"),
    (damage_width, "cannot be read as a codec .*train it again"),
    (damage_weights, "cannot be read as a codec .*train it again"),
    (damage_no_weights, "cannot be read as a codec .*train it again"),
    (damage_a_tensor, "cannot be read as a codec .*encoder.1.weight.*train it again"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
def test_what_is_no_codec_is_refused_in_one_line(damage, message: str, tmp_path: Path):
    save_codec(tmp_path, made("picture"))
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_codec(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_codec_is_replaced_whole(tmp_path: Path):
    first = save_codec(tmp_path, made("picture"))
    other = build_codec("picture", replace(PICTURE, channels=8), CLIPS)
    second = save_codec(tmp_path, other)
    assert first != second == load_codec(tmp_path).fingerprint
    assert {path.name for path in tmp_path.iterdir()} == {WEIGHTS, DESCRIPTION}


def test_frozen_codecs_tell_any_change_of_their_weights():
    codecs = [made("picture"), made("sound")]
    frozen = FrozenCodecs(codecs)
    frozen.check()
    codecs[1].quantizer.codebooks[0].vectors[3, 1] += 1e-6
    with pytest.raises(CheckpointError, match="the weights of sound codec .* have changed in memory .*: nothing is sa"):
        frozen.check()


def test_settings_of_the_other_kind_are_a_wrong_argument():
    with pytest.raises(ValueError, match="a codec of kind 'sound' is not described by PictureCodecSettings"):
        build_codec("sound", PICTURE, CLIPS)


@pytest.mark.parametrize(("kind", "settings"), [("picture", PICTURE), ("sound", SOUND)])
def test_codecs_refuse_stereo(kind: str, settings: PictureCodecSettings | SoundCodecSettings):
    with pytest.raises(SettingsError, match=r"clips\.sound_channels=2, but codecs hear one channel"):
        build_codec(kind, settings, replace(CLIPS, sound_channels=2))
