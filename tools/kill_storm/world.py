"""What the storm trains: a world model that is as small as it can be, from videos and a codec made on the spot."""

import contextlib
import io
from pathlib import Path

from streams.addresses import find_videos
from streams.physics.world import write_clip
from streams.settings import ClipSettings, LoaderSettings, PhysicsSettings
from streams.videos import VideoSource
from tools.kill_storm.settings import KillStormSettings
from worldmodel.cache.build import BuildOptions, encode_videos
from worldmodel.cache.encoding import clip_settings
from worldmodel.codecs.store import load_codec
from worldmodel.config import write_settings
from worldmodel.settings import (
    DctSettings,
    HeadSettings,
    ModelSettings,
    TokenizerSettings,
    TrainingSettings,
    TrainSettings,
    TransformerSettings,
)
from worldmodel.untrained import write_codec

WORLD = PhysicsSettings(height=16, width=16, frames_per_second=10.0, seconds=4.0, sample_hz=8000, num_looks=2)
NUM_VIDEOS, CLIP_FRAMES, WINDOW_FRAMES, HELDOUT = 6, 16, 4, 0.3
TRANSFORMER = TransformerSettings(dim=16, depth=1, num_heads=1)
# The random states are part of what must come back: noise is drawn in every step.
MODEL = ModelSettings(trunk=TRANSFORMER, decoder=TRANSFORMER, window_frames=3, context_noise=0.2)


def make_world(folder: Path, settings: KillStormSettings, num_steps: int) -> Path:
    """Makes videos, a codec without training, and the latent cache; returns the file of the training's settings."""
    videos, codec, cache = folder / "videos", folder / "codec", folder / "latents.zarr"
    videos.mkdir(parents=True)
    for seed in range(NUM_VIDEOS):
        write_clip(videos, WORLD, seed)
    clips = ClipSettings(frames_per_second=10.0, height=16, width=16, sample_hz=8000, num_frames=CLIP_FRAMES)
    dct = DctSettings(block=8, qualities=(30,), bands=(1, 3))
    with contextlib.redirect_stdout(io.StringIO()):
        write_codec(TokenizerSettings(str(videos), str(codec), clips=clips, family="dct", dct=dct))
    loaded = load_codec(codec)
    source = VideoSource(find_videos(videos), clip_settings([loaded], CLIP_FRAMES))
    encode_videos(source, [loaded], cache, BuildOptions(HELDOUT, thumbnail_side=16, progress=False))
    file = folder / "train.yaml"
    write_settings(train_settings(settings, cache, codec, num_steps), file)
    return file


def train_settings(settings: KillStormSettings, cache: Path, codec: Path, num_steps: int) -> TrainSettings:
    """Of the training; every step is reported, and every process has a worker that reads ahead."""
    training = TrainingSettings(
        steps=num_steps,
        warmup_steps=10,
        zero_stage=settings.zero_stage,
        spike_factor=20.0,
        report_every=1,
        preview_every=0,
        checkpoint_every=settings.checkpoint_every,
        keep_checkpoints=2,
        seed=settings.seed,
    )
    return TrainSettings(
        codecs=[str(codec)],
        run="RUN",
        cache=str(cache),
        num_frames=WINDOW_FRAMES,
        loader=LoaderSettings(batch_size=2 * settings.processes, num_workers=1, prefetch_batches=2),
        model=MODEL,
        heads=HeadSettings(0.0, 0.0, 0.0, 0.0),
        training=training,
    )
