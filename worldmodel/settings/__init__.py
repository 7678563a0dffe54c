"""Settings of every part, as frozen dataclasses. Nothing heavy is imported here, so `--help` is quick."""

from worldmodel.settings.codecs import (
    DctSettings,
    HybridSettings,
    PictureCodecSettings,
    PictureLossSettings,
    QuantizerSettings,
    SoundCodecSettings,
    Tokens1dSettings,
)
from worldmodel.settings.commands import (
    DemoSettings,
    DoctorSettings,
    EncodingSettings,
    EvaluateCodecSettings,
    EvaluateSettings,
    RolloutSettings,
    TokenizerSettings,
    TrainSettings,
    WatchSettings,
    Weights,
)
from worldmodel.settings.model import (
    HeadSettings,
    ModelSettings,
    SamplingSettings,
    TrainingSettings,
    TransformerSettings,
)

__all__ = [
    "DctSettings",
    "DemoSettings",
    "DoctorSettings",
    "EncodingSettings",
    "EvaluateCodecSettings",
    "EvaluateSettings",
    "HeadSettings",
    "HybridSettings",
    "ModelSettings",
    "PictureCodecSettings",
    "PictureLossSettings",
    "QuantizerSettings",
    "RolloutSettings",
    "SamplingSettings",
    "SoundCodecSettings",
    "TokenizerSettings",
    "Tokens1dSettings",
    "TrainSettings",
    "TrainingSettings",
    "TransformerSettings",
    "WatchSettings",
    "Weights",
]
