import itertools

import pytest
import torch
from torch import Tensor

from worldmodel.codecs.dct_latents import CoefficientLatents
from worldmodel.layout import Pyramid, Scale

# One code for the whole frame, two planes of a coarse grid, one of the finest with nothing but zeros, and three.
PYRAMID = Pyramid((Scale(1, 1, 4), Scale(2, 2, 5, planes=2), Scale(4, 4, 1), Scale(4, 4, 7, planes=3)))


def random_codes(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randint(scale.vocabulary, (2, scale.num_codes), generator=generator) for scale in PYRAMID.scales]
    return torch.cat(parts, 1)


def test_a_place_holds_every_plane_of_every_scale_in_a_channel_of_its_own():
    latents, codes = CoefficientLatents(PYRAMID), random_codes(0)
    assert latents.dim == 1 + 2 + 1 + 3
    latent, channel = latents.embed(codes), 0
    for scale, part in zip(PYRAMID.scales, PYRAMID.slices, strict=True):
        values = torch.arange(scale.vocabulary) - (scale.vocabulary - 1) / 2
        unit = values.square().mean().sqrt().clamp(min=1)
        for plane in range(scale.planes):
            for row, column in itertools.product(range(4), range(4)):
                place = (row * scale.height // 4) * scale.width + column * scale.width // 4
                code = codes[:, part][:, plane * scale.num_places + place]
                assert torch.equal(latent[:, channel, row, column], values[code] / unit)
            channel += 1


def test_what_is_decoded_before_a_scale_is_the_coarser_scales_averaged():
    latents, codes = CoefficientLatents(PYRAMID), random_codes(1)
    latent, first = latents.embed(codes), [0, 1, 3, 4]
    for index, (scale, partial) in enumerate(zip(PYRAMID.scales, latents.partials(codes), strict=True)):
        side = 4 // scale.height
        means = latent.unflatten(3, (-1, side)).unflatten(2, (-1, side)).mean((3, 5))
        means[:, first[index] :] = 0
        torch.testing.assert_close(partial, means)
        unknown = codes.clone()
        unknown[:, PYRAMID.slices[index].start :] = 0
        assert torch.equal(latents.seen_by(latents.embed(unknown, index), index), partial)


@pytest.mark.parametrize("index", range(4))
def test_the_codes_of_a_place_stand_for_the_sum_of_what_each_stands_for(index: int):
    latents, scale = CoefficientLatents(PYRAMID), PYRAMID.scales[index]
    codes = random_codes(2)[:, PYRAMID.slices[index]]
    vectors = latents.vectors(index)
    assert vectors.shape == (scale.planes, scale.vocabulary, latents.dim)
    expected = torch.zeros(2, scale.num_places, latents.dim)
    for place in range(scale.num_places):
        for plane in range(scale.planes):
            expected[:, place] += vectors[plane][codes[:, plane * scale.num_places + place]]
    assert torch.equal(latents.lookup(codes, index), expected)


def test_nothing_of_it_is_stored_with_a_model():
    assert CoefficientLatents(PYRAMID).state_dict() == {}
