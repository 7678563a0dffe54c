from pathlib import Path

from tools.kill_storm.settings import KillStormSettings
from tools.kill_storm.world import make_world
from worldmodel.cache.latents import LatentCache, require_codec
from worldmodel.codecs.store import fingerprint_of
from worldmodel.config import read_settings
from worldmodel.settings import TrainSettings


def test_a_world_is_a_cache_with_its_codec_and_the_settings_of_a_training(tmp_path: Path):
    file = make_world(tmp_path / "world", KillStormSettings(processes=3, checkpoint_every=5, zero_stage=2), 40)
    settings = read_settings(TrainSettings, file)
    assert settings.cache is not None
    assert len(LatentCache(settings.cache).clips_of("train")) > settings.loader.batch_size
    require_codec(settings.cache, {"picture": fingerprint_of(Path(settings.codecs[0]))})
    training = settings.training
    assert (training.steps, training.checkpoint_every, training.zero_stage) == (40, 5, 2)
    assert (settings.loader.batch_size, settings.loader.num_workers) == (6, 1)
