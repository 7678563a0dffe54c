import dataclasses

import pytest

from tests.worldmodel.cache.small_cache import INFO
from worldmodel.cache.info import CacheInfo


def test_attributes_give_back_what_was_written():
    assert CacheInfo.from_attributes(INFO.to_attributes()) == INFO


def test_a_cache_of_format_1_says_less():
    old = {name: value for name, value in INFO.to_attributes().items() if name not in {"codecs", "clips", "build"}}
    assert CacheInfo.from_attributes(old).build == {}


def test_equal_builds_do_not_differ_whatever_became_of_them():
    later = dataclasses.replace(INFO, skipped=[("c.mp4", "gone")], statistics={"still": {}})
    assert INFO.difference(later) is None
    moved = dataclasses.replace(INFO, codecs={"picture": {"settings": {"dim": 1}, "run": "there"}})
    assert (
        dataclasses.replace(INFO, codecs={"picture": {"settings": {"dim": 1}, "run": "here"}}).difference(moved) is None
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_frames": 5}, "num_frames is 9 there and 5 here"),
        ({"fingerprints": {"picture": "p2", "sound": "s1"}}, "fingerprints.picture is p1 there and p2 here"),
        ({"build": {"batch_size": 3}}, "build.batch_size is None there and 3 here"),
        ({"videos": [("a.mp4", "aa")]}, "1 videos are missing here, first b.mp4"),
        ({"videos": [*INFO.videos, ("c.mp4", "cc")]}, "1 videos are new here, first c.mp4"),
        ({"videos": [("a.mp4", "aa"), ("b.mp4", "b2")]}, "1 videos are changed since, first b.mp4"),
        ({"videos": INFO.videos[::-1]}, "another order"),
    ],
)
def test_the_difference_is_named(change: dict, named: str):
    assert named in (INFO.difference(dataclasses.replace(INFO, **change)) or "")
