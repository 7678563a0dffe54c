import pytest

from streams.mixture import Mixture
from streams.passing_over import PassingOver
from streams.source import Source
from streams.videos import VideoSource
from worldmodel.cache.latents import LatentSource


@pytest.mark.parametrize("kind", [LatentSource, Mixture, PassingOver, VideoSource])
def test_all_sources_can_be_loaded(kind: type):
    assert issubclass(kind, Source)


def test_a_source_need_not_have_blocks():
    assert issubclass(LatentSource, Source)
    assert not hasattr(LatentSource, "blocks")
