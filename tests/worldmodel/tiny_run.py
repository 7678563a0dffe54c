"""A tiny untrained run, as a loaded run looks, whose model does not merely copy."""

from dataclasses import dataclass

import torch

from streams.settings import ClipSettings
from tests.worldmodel.tiny import MODEL, PICTURE, SOUND_QUANTIZER, enliven, tiny_quantizer
from worldmodel.codecs.picture import PictureVQ
from worldmodel.codecs.sound import SoundVQ
from worldmodel.model import WorldModel
from worldmodel.settings import SoundCodecSettings

CLIPS = ClipSettings(frames_per_second=10.0, height=16, width=16, sample_hz=8000)
SOUND = SoundCodecSettings(channels=16, num_mels=16, slices_per_frame=4, quantizer=SOUND_QUANTIZER)


@dataclass
class TinyRun:
    """What the rollout command asks of a loaded run."""

    model: WorldModel
    picture: PictureVQ
    sound: SoundVQ | None
    fingerprint: str = "tiny"


def tiny_run(sound: bool = True, clips: ClipSettings = CLIPS) -> TinyRun:
    """A run in evaluation mode."""
    torch.manual_seed(0)
    picture = PictureVQ(PICTURE, clips).eval()
    picture.quantizer = tiny_quantizer()
    ear = SoundVQ(SOUND, clips).eval() if sound else None
    if ear is not None:
        ear.quantizer = tiny_quantizer(SOUND_QUANTIZER, seed=1)
    model = WorldModel(MODEL, picture.quantizer, None if ear is None else ear.quantizer)
    enliven(model.decoder)
    return TinyRun(model.eval(), picture, ear)
