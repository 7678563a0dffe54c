"""What a world model needs to be trained, in small and made at once: videos, a codec with random weights, a cache."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from streams.addresses import find_videos
from streams.settings import LoaderSettings
from streams.videos import VideoSource
from tests.fake_codecs import make_videos
from tests.worldmodel.tiny import CLIPS, MODEL, PICTURE
from worldmodel.cache.build import BuildOptions, encode_videos
from worldmodel.cache.encoding import clip_settings
from worldmodel.codecs.picture import PictureVQ
from worldmodel.codecs.store import load_codec, save_codec
from worldmodel.settings import HeadSettings, TrainingSettings, TrainSettings

NUM_VIDEOS, VIDEO_FRAMES, CLIP_FRAMES, WINDOW_FRAMES = 10, 48, 8, 6
HELDOUT = 0.3


@dataclass(frozen=True)
class SmallWorld:
    """Folders; they are shared by tests, which change nothing in them."""

    videos: Path
    picture: Path
    cache: Path

    def settings(self, run: Path, steps: int) -> TrainSettings:
        """Of a training without draws of its own, whose losses are the same for any number of processes."""
        return TrainSettings(
            codecs=[str(self.picture)],
            run=str(run),
            cache=str(self.cache),
            num_frames=WINDOW_FRAMES,
            loader=LoaderSettings(batch_size=4, num_workers=0),
            model=replace(MODEL, decoded_frames=0),
            heads=HeadSettings(flow=0.0, speed=0.0, arrow_of_time=0.0, correspondence=0.0),
            training=TrainingSettings(steps=steps, warmup_steps=2, report_every=5, preview_every=0, checkpoint_every=6),
        )


def make_small_world(folder: Path) -> SmallWorld:
    """Everything, in one process."""
    small = SmallWorld(*(folder / name for name in ("videos", "picture", "latents.zarr")))
    make_videos(small.videos, NUM_VIDEOS, VIDEO_FRAMES)
    torch.manual_seed(0)
    save_codec(small.picture, PictureVQ(PICTURE, replace(CLIPS, frames_per_second=10.0, sample_hz=8000)).eval())
    codecs = [load_codec(small.picture)]
    source = VideoSource(find_videos(small.videos), clip_settings(codecs, CLIP_FRAMES))
    options = BuildOptions(HELDOUT, batch_size=2, progress=False)
    encode_videos(source, codecs, small.cache, options, runs=[str(small.picture)])
    return small
