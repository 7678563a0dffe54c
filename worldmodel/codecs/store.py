"""Codecs on disk: frozen weights (safetensors) beside a description, and the fingerprint of both."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from streams.settings import ClipSettings
from worldmodel.codecs.dct import PictureDCT
from worldmodel.codecs.hybrid import PictureHybrid
from worldmodel.codecs.picture import PictureVQ
from worldmodel.codecs.sound import SoundVQ
from worldmodel.codecs.tokens_1d import PictureTokens
from worldmodel.errors import CheckpointError, SettingsError
from worldmodel.settings import (
    DctSettings,
    HybridSettings,
    PictureCodecSettings,
    QuantizerSettings,
    SoundCodecSettings,
    Tokens1dSettings,
    TransformerSettings,
)
from worldmodel.tensors import write_tensors

PictureCodec = PictureVQ | PictureDCT
Codec = PictureCodec | SoundVQ
CodecSettings = PictureCodecSettings | DctSettings | HybridSettings | Tokens1dSettings | SoundCodecSettings
SETTINGS: dict[tuple[str, str], type[Any]] = {
    ("picture", "vq"): PictureCodecSettings,
    ("picture", "dct"): DctSettings,
    ("picture", "hybrid"): HybridSettings,
    ("picture", "tokens_1d"): Tokens1dSettings,
    ("sound", "vq"): SoundCodecSettings,
}
WEIGHTS, DESCRIPTION = "codec.safetensors", "codec.json"
FORMAT_VERSION = 1


def build_codec(kind: str, settings: CodecSettings, clips: ClipSettings) -> Codec:
    """An untrained codec.

    Raises:
        ValueError: the settings are of the other kind.
        SettingsError: the clips have stereo sound, whose channels a sound codec (and the films beside a picture codec)
            would take for frames.
    """
    if clips.sound_channels != 1:
        raise SettingsError(
            f"clips.sound_channels={clips.sound_channels}, but codecs hear one channel: set clips.sound_channels=1"
        )
    if kind == "picture" and isinstance(settings, PictureCodecSettings):
        return PictureVQ(settings, clips)
    if kind == "picture" and isinstance(settings, DctSettings):
        return PictureDCT(settings, clips)
    if kind == "picture" and isinstance(settings, HybridSettings):
        return PictureHybrid(settings, clips)
    if kind == "picture" and isinstance(settings, Tokens1dSettings):
        return PictureTokens(settings, clips)
    if kind == "sound" and isinstance(settings, SoundCodecSettings):
        return SoundVQ(settings, clips)
    raise ValueError(f"a codec of kind {kind!r} is not described by {type(settings).__name__}")


def save_codec(run: Path, codec: Codec) -> str:
    """Write a trained codec into a run's folder, each file temporary-then-rename; return its fingerprint.

    Raises:
        CheckpointError: it cannot be written (a full disk, say).
    """
    try:
        return _save_codec(run, codec)
    except (OSError, SafetensorError) as error:
        for name in (WEIGHTS, DESCRIPTION):
            (run / f"{name}.partial").unlink(missing_ok=True)
        raise CheckpointError(
            f"the codec cannot be written to {run} ({error}): make room there and resume its run, which only writes it"
        ) from error


def _save_codec(run: Path, codec: Codec) -> str:
    run.mkdir(parents=True, exist_ok=True)
    description = {
        "format": FORMAT_VERSION,
        "kind": codec.kind,
        "family": codec.family,
        "settings": dataclasses.asdict(codec.settings),
        "clips": dataclasses.asdict(codec.clips),
    }
    partial = run / f"{WEIGHTS}.partial"
    write_tensors({name: tensor.contiguous() for name, tensor in codec.state_dict().items()}, partial)
    partial.replace(run / WEIGHTS)
    partial = run / f"{DESCRIPTION}.partial"
    partial.write_text(json.dumps(description, indent=2), encoding="utf-8")
    partial.replace(run / DESCRIPTION)
    return fingerprint_of(run)


def load_codec(run: Path | str) -> Codec:
    """A frozen codec in evaluation mode, with `fingerprint` set.

    Raises:
        CheckpointError: there is no codec, or it is damaged or of another version.
    """
    run = Path(run)
    description = _read_description(run)
    try:
        clips = ClipSettings(**description["clips"])
        codec = build_codec(description["kind"], _settings_of(description), clips)
        codec.load_state_dict(load_file(run / WEIGHTS))
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{run / WEIGHTS} cannot be read as a codec ({reason}); train it again") from error
    codec.fingerprint = fingerprint_of(run)
    return codec.eval().requires_grad_(False)


def fingerprint_of(run: Path) -> str:
    """Hash over description and weights: equal for equal codes, different for any other codec."""
    return _digest(json.dumps(_read_description(run), sort_keys=True), load_file(run / WEIGHTS))


class FrozenCodecs:
    """Codecs that must not change while something is trained on their codes."""

    def __init__(self, codecs: Sequence[Codec]) -> None:
        self.codecs = codecs
        self.digests = [_digest("", codec.state_dict()) for codec in codecs]

    def check(self) -> None:
        """Compare all weights with what they were.

        Raises:
            CheckpointError: names the codec that has changed.
        """
        for codec, before in zip(self.codecs, self.digests, strict=True):
            if _digest("", codec.state_dict()) != before:
                raise CheckpointError(
                    f"the weights of {codec.kind} codec {codec.fingerprint} have changed in memory while a world model "
                    "trained on its codes: nothing is saved; resume from the last checkpoint"
                )


def _digest(description: str, weights: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(description.encode())
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def copy_codec(source: Path, target: Path) -> None:
    """Copy the files of a codec, so that a run is complete by itself."""
    target.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS, DESCRIPTION):
        shutil.copyfile(source / name, target / f"{name}.partial")
        (target / f"{name}.partial").replace(target / name)


def _read_description(run: Path) -> dict[str, Any]:
    path = run / DESCRIPTION
    if not path.is_file():
        raise CheckpointError(f"{run} holds no codec ({DESCRIPTION} is missing): give a run of `worldmodel tokenizer`")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not a codec's description ({error}); train the codec again") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT_VERSION:
        raise CheckpointError(f"{path} is not of codec format {FORMAT_VERSION}; train the codec again")
    return description


def _settings_of(description: dict[str, Any]) -> CodecSettings:
    kind = SETTINGS[description["kind"], description.get("family", "vq")]
    plain = {name: _tuples(value) for name, value in description["settings"].items()}
    if kind is HybridSettings:
        plain.setdefault("refiner_channels", 0)  # those of before had no refiner
    for name, part in (("quantizer", QuantizerSettings), ("transformer", TransformerSettings)):
        if name in plain:
            plain[name] = part(**{key: _tuples(value) for key, value in plain[name].items()})
    return kind(**plain)


def _tuples(value: Any) -> Any:
    """JSON knows lists alone, and settings hold tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
