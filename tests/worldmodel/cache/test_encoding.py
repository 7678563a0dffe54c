import dataclasses
import hashlib

import pytest

from tests.fake_codecs import CLIPS, FakePictureCodec, FakeSoundCodec
from worldmodel.cache.encoding import by_kind, heldout_of, thumbnail_size
from worldmodel.errors import SettingsError


def test_the_split_is_stable_when_videos_are_added():
    hashes = [hashlib.sha256(bytes([number])).hexdigest() for number in range(60)]
    few, many = heldout_of(hashes[:40], 0.2), heldout_of(hashes, 0.2)
    assert few == many[:40]
    assert few[::-1] == heldout_of(hashes[:40][::-1], 0.2)
    assert 4 <= sum(many) <= 20


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_two_videos_are_split_whatever_the_share(share: float):
    hashes = [hashlib.sha256(bytes([number])).hexdigest() for number in range(2)]
    assert sorted(heldout_of(hashes, share)) == [False, True]


def test_copies_of_one_video_are_never_in_both_splits():
    hashes = [hashlib.sha256(bytes([number % 3])).hexdigest() for number in range(9)]
    held = heldout_of(hashes, 1e-9)
    assert held == held[:3] * 3
    assert sum(held) == 3
    assert heldout_of(hashes[:1] * 2, 0.5) in ([True, True], [False, False])


def test_a_share_of_none_or_all_is_taken_at_its_word():
    hashes = [hashlib.sha256(bytes([number])).hexdigest() for number in range(3)]
    assert heldout_of(hashes, 0.0) == [False] * 3
    assert heldout_of(hashes, 1.0) == [True] * 3
    with pytest.raises(SettingsError, match="heldout 1.5 is not a share"):
        heldout_of(hashes, 1.5)


def test_codecs_must_fit_each_other():
    with pytest.raises(SettingsError, match="give one picture codec and at most one sound codec"):
        by_kind([FakeSoundCodec()])
    with pytest.raises(SettingsError, match="give one picture codec"):
        by_kind([FakePictureCodec(), FakePictureCodec()])
    other = FakeSoundCodec(dataclasses.replace(CLIPS, frames_per_second=5.0))
    with pytest.raises(SettingsError, match="sample time differently"):
        by_kind([FakePictureCodec(), other])


def test_thumbnails_show_all_of_a_frame():
    assert thumbnail_size(dataclasses.replace(CLIPS, height=64, width=64), 32) == (32, 32)
    assert thumbnail_size(dataclasses.replace(CLIPS, height=128, width=224), 32) == (32, 56)
    assert thumbnail_size(CLIPS, 32) == (16, 16)
