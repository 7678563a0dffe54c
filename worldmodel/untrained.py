"""`worldmodel tokenizer --family dct`: a codec that is written without training, and what it does to some frames."""

from pathlib import Path

import numpy as np

from streams.clip import Batch, to_float, to_uint8
from worldmodel.checks import check_family, check_videos, settings_to_blame
from worldmodel.codecs.dct import PictureDCT
from worldmodel.codecs.store import DESCRIPTION, build_codec, save_codec
from worldmodel.config import write_settings
from worldmodel.data import first_batch, open_clips
from worldmodel.errors import CheckpointError
from worldmodel.evaluation.metrics import psnr
from worldmodel.run import SETTINGS
from worldmodel.settings import TokenizerSettings
from worldmodel.training import cluster

NUM_CLIPS = 16  # that are measured


def write_codec(settings: TokenizerSettings, resume: bool = False) -> None:
    """Write the codec that the settings describe into the run's folder, and print what it does to some clips.

    Raises:
        CheckpointError: the run has a codec already, or is to be resumed, where there is nothing to resume.
        MediaError: no video can be used.
        SettingsError: a setting does not fit.
    """
    run = Path(settings.run)
    check_videos(settings.videos)
    check_family(settings, trained=False)
    if resume:
        raise CheckpointError(f"{run}: a codec of family dct is not trained, so there is nothing to resume")
    if (run / DESCRIPTION).exists():
        raise CheckpointError(f"{run} already has a codec: choose another folder, or delete it")
    with settings_to_blame():
        codec = build_codec(settings.kind, settings.codec, settings.clips)
    assert isinstance(codec, PictureDCT)
    batch = first_batch(open_clips(settings), NUM_CLIPS)
    if cluster.is_main():
        write_settings(settings, run / SETTINGS)
        print(describe_frames(codec, batch))
        print(f"codec {save_codec(run, codec)} of family dct written to {run}; nothing had to be fitted or trained")


def describe_frames(codec: PictureDCT, batch: Batch) -> str:
    """PSNR, bits and changes of the codes of some clips, in one line."""
    codes = codec.encode(to_float(batch.frames))
    quality = np.minimum(psnr(to_uint8(codec.decode(codes)), batch.frames), 99.0)  # equal frames have no finite one
    changed = codes[:, 1:] != codes[:, :-1]
    return (
        f"{codes.shape[0] * codes.shape[1]} frames of {codes.shape[0]} clips: {quality.mean():.2f} dB, "
        f"{codec.bits(codes).double().mean():.0f} bits per frame as JPEG codes them, "
        f"{changed.double().mean() if changed.numel() else 0:.1%} of {codes.shape[2]} codes change from frame to frame"
    )
