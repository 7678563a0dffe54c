"""A whole path in small: physics videos, both codecs, a cache and a trained world, as the commands make them."""

from dataclasses import dataclass, replace
from pathlib import Path

from streams.addresses import find_videos
from streams.physics.world import write_clip
from streams.settings import LoaderSettings, PhysicsSettings
from streams.videos import VideoSource
from tests.worldmodel.tiny import MODEL, PICTURE
from tests.worldmodel.tiny_run import CLIPS, SOUND
from worldmodel.cache.build import BuildOptions, encode_videos
from worldmodel.cache.encoding import clip_settings
from worldmodel.codecs.store import load_codec
from worldmodel.commands import train_codec, train_world
from worldmodel.settings import EncodingSettings, TokenizerSettings, TrainingSettings, TrainSettings

WORLD = PhysicsSettings(height=16, width=16, frames_per_second=10.0, seconds=4.0, sample_hz=8000, num_looks=2)
NUM_VIDEOS, CLIP_FRAMES, WINDOW_FRAMES = 6, 16, 8
HELDOUT, THUMBNAIL = 0.3, 16
LOADER = LoaderSettings(batch_size=4, num_workers=0)
TRAINING = TrainingSettings(
    steps=6,
    warmup_steps=2,
    report_every=3,
    preview_every=0,
    checkpoint_every=3,
    zero_stage=0,
)


@dataclass(frozen=True)
class WholeRun:
    """Folders; they are shared by all tests, so copy what a test changes."""

    videos: Path
    picture: Path
    sound: Path
    cache: Path
    world: Path

    @property
    def settings(self) -> TrainSettings:
        """Of the world."""
        return TrainSettings(
            cache=str(self.cache),
            codecs=[str(self.sound), str(self.picture)],
            run=str(self.world),
            num_frames=WINDOW_FRAMES,
            loader=LOADER,
            model=replace(MODEL, own_context=0.5, own_context_from=0.3),
            training=replace(TRAINING, optimizer="muon"),
        )

    @property
    def settings_from_videos(self) -> TrainSettings:
        """The same, straight from the videos, with the codes that the cache holds."""
        encoding = EncodingSettings(CLIP_FRAMES, HELDOUT, THUMBNAIL)
        return replace(self.settings, cache=None, videos=str(self.videos), encoding=encoding)

    def codec_settings(self, kind: str, run: Path) -> TokenizerSettings:
        """Of one codec."""
        return TokenizerSettings(
            str(self.videos),
            str(run),
            "picture" if kind == "picture" else "sound",
            replace(CLIPS, num_frames=4),
            LOADER,
            PICTURE,
            SOUND,
            TRAINING,
        )


def make_whole_run(folder: Path) -> WholeRun:
    """Everything, in one process."""
    whole = WholeRun(*(folder / name for name in ("videos", "picture", "sound", "latents.zarr", "world")))
    whole.videos.mkdir()
    for seed in range(NUM_VIDEOS):
        write_clip(whole.videos, WORLD, seed)
    for kind, run in (("picture", whole.picture), ("sound", whole.sound)):
        train_codec(whole.codec_settings(kind, run))
    codecs = [load_codec(whole.picture), load_codec(whole.sound)]
    source = VideoSource(find_videos(whole.videos), clip_settings(codecs, CLIP_FRAMES))
    encode_videos(source, codecs, whole.cache, BuildOptions(HELDOUT, thumbnail_side=THUMBNAIL, progress=False))
    train_world(whole.settings)
    return whole


def make_pictures(whole: WholeRun, cache: Path) -> Path:
    """A cache of the same videos without their sound."""
    codecs = [load_codec(whole.picture)]
    source = VideoSource(find_videos(whole.videos), clip_settings(codecs, CLIP_FRAMES))
    encode_videos(source, codecs, cache, BuildOptions(HELDOUT, thumbnail_side=THUMBNAIL, progress=False))
    return cache
