from dataclasses import replace

import pytest
import torch
from torch import Tensor

from streams.clip import to_float, to_uint8
from streams.settings import ClipSettings
from tests.jpeg import moving, num_scan_bytes, read_back, synthetic, written
from worldmodel.codecs.dct import PictureDCT
from worldmodel.settings import DctSettings

CLIPS = ClipSettings(height=32, width=48)
LARGE = replace(CLIPS, height=64, width=96)


def pictures() -> Tensor:
    """Each a clip of one frame."""
    return to_float(torch.stack(list(synthetic().values())))[:, None]


@pytest.mark.parametrize("dc", ["difference", "value"])
@pytest.mark.parametrize("quality", [5, 20, 50, 100])
def test_decoded_codes_are_the_picture_that_libjpeg_decodes_and_cost_as_many_bits(quality: int, dc: str):
    codec = PictureDCT(DctSettings(qualities=(quality,), dc=dc), LARGE)  # type: ignore[arg-type]
    codes = codec.encode(pictures())
    for picture, decoded, bits in zip(
        synthetic().values(), to_uint8(codec.decode(codes))[:, 0], codec.bits(codes), strict=True
    ):
        data = written(picture, quality, "half")
        assert torch.equal(decoded, read_back(data))
        assert -(-int(bits) // 8) == num_scan_bytes(data)


def test_a_second_quality_refines_the_first_which_stays_what_libjpeg_makes_of_it():
    codec = PictureDCT(DctSettings(qualities=(10, 40)), LARGE)
    coarse = PictureDCT(DctSettings(qualities=(10,)), LARGE)
    fine = PictureDCT(DctSettings(qualities=(40,)), LARGE)
    codes = codec.encode(pictures())
    num_coarse = len(coarse.pyramid.scales)
    assert torch.equal(codec.decode(codes, num_coarse), coarse.decode(coarse.encode(pictures())))
    error, alone = (
        (each - pictures()).square().mean() for each in (codec.decode(codes), fine.decode(fine.encode(pictures())))
    )
    assert error < 1.1 * alone
    assert codec.pyramid.scales[num_coarse + 1].vocabulary < codec.pyramid.scales[1].vocabulary


def test_sticky_values_stay_within_their_hysteresis_and_off_is_off():
    frames = moving()[None]
    plain = PictureDCT(DctSettings(sticky_margin=0.0), CLIPS)
    codes = plain.encode(frames)
    assert torch.equal(codes, plain.encode(frames.transpose(0, 1)).transpose(0, 1))
    sticky = PictureDCT(DctSettings(sticky_margin=0.5), CLIPS)
    steps = sticky.layout.spread(sticky.tables) * 8
    values = sticky.values(sticky.encode(frames)[0])[:, 0]
    coefficients = sticky.coefficients(frames)[0]
    off = (coefficients / steps - values).abs()
    assert 0.5 < off.max() <= 0.75**0.5 + 1e-6  # squared, half a step and the margin
    nearest = plain.values(codes[0])[:, 0]
    kept = values != nearest
    assert kept.any()
    assert torch.equal(values[1:][kept[1:]], values[:-1][kept[1:]])
    # By hand: 1.7 steps are 2, unless it was 1 before: 0.7**2 - 0.3**2 = 0.4 is not above the margin; 1.8 is.
    for tenths, expected in ((17, 1), (18, 2)):
        before = sticky.encode_frame(steps, None)
        after = sticky.encode_frame(steps * tenths // 10, before)
        assert int(sticky.values(after)[0, 0, 0]) == expected


@pytest.mark.parametrize("target", [1500, 4000, 9000])
def test_the_quality_follows_the_picture_to_a_target_of_bits(target: int):
    # Plain ground, then more and more of a grainy picture.
    grainy = to_float(synthetic()["grainy"])
    frames = torch.stack([torch.cat((grainy[:, :rows], grainy[:, rows:] * 0.3), 1) for rows in range(0, 65, 8)])
    codec = PictureDCT(DctSettings(qualities=(2, 98), bits_per_frame=target), LARGE)
    codes = codec.encode(frames[None])
    bits = codec.bits(codes)[0]
    assert ((bits - target).abs() <= 0.1 * target).all(), bits
    qualities = codes[0, :, 0]
    assert qualities[0] > qualities[-1]
    still = codec.encode(frames[:1].expand(4, -1, -1, -1)[None])[0]
    assert torch.equal(still[0], still[3])
    rebuilt = to_uint8(codec.decode(codes))[0, -1]
    last = codec.encode(frames[None, -1:])
    quality = codec.qualities[int(last[0, 0, 0])]
    alone = to_uint8(codec.decode(last))[0, 0]
    assert torch.equal(alone, read_back(written(to_uint8(frames[-1]), quality, "half")))
    assert (rebuilt.float() - alone.float()).abs().mean() < 8


def test_a_target_out_of_reach_gets_the_nearest_quality():
    for target, expected in ((10, 0), (10**6, 30)):
        codec = PictureDCT(DctSettings(qualities=(20, 50), bits_per_frame=target), CLIPS)
        codes = codec.encode(moving()[None])
        assert (codes[..., 0] == expected).all()
        assert (codes[:, 1:] == codes[:, :-1]).float().mean() > 0.9  # and what stands still sticks


def test_means_as_differences_carry_fewer_bits_than_as_values():
    entropies = []
    for dc in ("difference", "value"):
        codec = PictureDCT(DctSettings(dc=dc), LARGE)  # type: ignore[arg-type]
        counts = torch.bincount(codec.encode(pictures()[:1])[..., codec.pyramid.slices[1]].flatten()).float()
        share = counts[counts > 0] / counts.sum()
        entropies.append(float(-(share * share.log2()).sum()))
    assert entropies[0] < entropies[1]


WRONG = [
    ({"chroma": "half"}, CLIPS, {"height": 40}, "frames of 40x48 are not whole blocks: .* multiples of 16; change"),
    ({"block": 16, "chroma": "full"}, CLIPS, {"width": 40}, "frames of 32x40 are not whole blocks: .* multiples of 16"),
    ({"qualities": ()}, CLIPS, {}, r"dct.qualities=\[\] must rise"),
    ({"qualities": (30, 20)}, CLIPS, {}, r"dct.qualities=\[30, 20\] must rise, from 1 at least to 100 at most"),
    ({"qualities": (101,)}, CLIPS, {}, r"dct.qualities=\[101\] must rise"),
    ({"bands": (2, 6)}, CLIPS, {}, r"dct.bands=\[2, 6\] must begin with 1"),
    ({"bands": (1, 64)}, CLIPS, {}, r"dct.bands=\[1, 64\] .* stop below the 64 frequencies"),
    ({"bands": ()}, CLIPS, {}, r"dct.bands=\[\] must begin with 1"),
    ({"sticky_margin": -1.0}, CLIPS, {}, "dct.sticky_margin=-1.0 must be 0 or more"),
    ({"bits_per_frame": 100}, CLIPS, {}, r"dct.qualities=\[20\] must be the lowest and the highest quality"),
]


@pytest.mark.parametrize(("settings", "clips", "size", "message"), WRONG, ids=[str(row[0] | row[2]) for row in WRONG])
def test_wrong_settings_are_errors_that_name_them(settings: dict, clips: ClipSettings, size: dict, message: str):
    with pytest.raises(ValueError, match=message):
        PictureDCT(DctSettings(**settings), replace(clips, **size))
