import pytest
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from worldmodel.codecs.scales import ScaleLatents
from worldmodel.layout import Pyramid, Scale


class Numbers(ScaleLatents):
    """A code of a coarser scale counts ten times as much."""

    def __init__(self) -> None:
        super().__init__()
        self.dim, self.pyramid = 1, Pyramid((Scale(1, 1, 8), Scale(2, 2, 8)))
        self.register_buffer("units", torch.tensor([10.0, 1.0]))

    def add_scale(
        self, latent: Float[Tensor, "item dim height width"], codes: Int[Tensor, "item code"], scale: int
    ) -> Float[Tensor, "item dim height width"]:
        one = self.pyramid.scales[scale]
        values = self.get_buffer("units")[scale] * codes.float().reshape(-1, 1, one.height, one.width)
        return latent + F.interpolate(values, self.pyramid.grid)


CODES = torch.tensor([[3, 1, 2, 4, 5]])


def test_scales_add_up_and_each_is_told_the_coarser_ones():
    numbers = Numbers()
    assert numbers.embed(CODES).flatten().tolist() == [31, 32, 34, 35]
    assert numbers.embed(CODES, 1).flatten().tolist() == [30] * 4
    first, second = numbers.partials(CODES)
    assert first.flatten().tolist() == [0]
    assert second.flatten().tolist() == [30] * 4


def test_what_is_left_over_for_a_scale_is_the_mean_over_its_places_less_what_it_was_told():
    numbers = Numbers()
    whole, seen = numbers.embed(CODES), numbers.partials(CODES)
    assert numbers.left_over(whole, seen[0], 0).flatten().tolist() == [33]
    assert numbers.left_over(whole, seen[1], 1).flatten().tolist() == [1, 2, 4, 5]


def test_a_kind_of_codes_has_to_say_what_they_stand_for():
    with pytest.raises(NotImplementedError):
        ScaleLatents().add_scale(torch.zeros(1, 1, 2, 2), CODES, 0)
