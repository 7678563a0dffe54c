from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from tests.worldmodel.tiny import codebooks_of
from worldmodel.codecs.codebooks import LearnedCodebook
from worldmodel.codecs.prefix_quantizer import PrefixQuantizer
from worldmodel.settings import QuantizerSettings

ROWS = ((1, 1), (1, 3), (1, 6))  # the first token, two more, three more
SETTINGS = QuantizerSettings(grids=ROWS, vocabulary=16, dim=4, sticky_margin=0.0)
SCALE_OF = (0, 1, 1, 2, 2, 2)
KINDS = ("vq", "fsq", "bsq")


def made(margin: float = 0.0, kind: Literal["vq", "fsq", "bsq"] = "vq") -> PrefixQuantizer:
    """Codebooks that shrink from scale to scale, as the tokens do."""
    torch.manual_seed(0)
    quantizer = PrefixQuantizer(replace(SETTINGS, sticky_margin=margin, kind=kind))
    for index, codebook in enumerate(codebooks_of(quantizer)):
        table = torch.randn(16, 4) if isinstance(codebook, LearnedCodebook) else codebook.vectors / 0.1
        codebook.vectors.copy_(table * 0.5**index)
    return quantizer.eval()


def moving(num_clips: int = 2, num_frames: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(num_clips, 1, 4, 1, 6, generator=generator)
    return start + 0.15 * torch.randn(num_clips, num_frames, 4, 1, 6, generator=generator).cumsum(1)


def test_every_scale_holds_the_tokens_that_lengthen_the_row():
    quantizer = made()
    assert [scale.num_codes for scale in quantizer.pyramid.scales] == [1, 2, 3]
    assert quantizer.pyramid.grid == (1, 6)
    assert quantizer.pyramid.whole_frame


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("margin", [0.0, 0.05, 0.5])
def test_a_token_keeps_its_code_while_that_costs_at_most_the_margin(kind: Literal["vq", "fsq", "bsq"], margin: float):
    quantizer, latents = made(margin, kind), moving()
    codes, num_kept = quantizer.encode(latents), 0
    for clip in range(2):
        before: list[int | None] = [None] * 6
        for frame in range(7):
            for token, scale in enumerate(SCALE_OF):
                table = codebooks_of(quantizer)[scale].vectors
                variance = float((table - table.mean(0)).square().sum(1).mean())
                distances = (table - latents[clip, frame, :, 0, token]).square().sum(1).tolist()
                best = min(range(16), key=distances.__getitem__)
                old = before[token]
                if old is not None and distances[old] <= distances[best] + margin * variance:
                    num_kept += old != best
                    best = old
                before[token] = best
            assert codes[clip, frame].tolist() == before
    assert (num_kept > 0) == (margin > 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_codes_is_a_row_of_entries_and_its_prefix_the_same_and_zeros(kind: Literal["vq", "fsq", "bsq"]):
    quantizer = made(kind=kind)
    codes = quantizer.encode(moving()).flatten(0, 1)
    whole = quantizer.embed(codes)
    for token, scale in enumerate(SCALE_OF):
        assert torch.equal(whole[:, :, 0, token], codebooks_of(quantizer)[scale].vectors[codes[:, token]])
    for num_scales, num_tokens in enumerate((0, 1, 3, 6)):
        part = quantizer.embed(codes, num_scales)
        assert torch.equal(part[..., :num_tokens], whole[..., :num_tokens])
        assert not part[..., num_tokens:].any()


def test_training_gives_the_codes_of_encoding_and_moves_the_codebooks():
    quantizer, latents = made(0.2), moving()
    quantized = quantizer(latents.flatten(0, 1), num_frames=7)
    assert torch.equal(quantized.codes.unflatten(0, (2, 7)), quantizer.encode(latents))
    torch.testing.assert_close(quantized.latent, quantizer.embed(quantized.codes))
    error = (latents.flatten(0, 1) - quantizer.embed(quantized.codes)).square().mean()
    torch.testing.assert_close(quantized.loss, error)
    before = [codebook.vectors.clone() for codebook in codebooks_of(quantizer)]
    quantizer.train()(latents.flatten(0, 1))
    for codebook, old in zip(codebooks_of(quantizer), before, strict=True):
        assert not torch.equal(codebook.vectors, old)


def test_the_gradient_goes_straight_through():
    quantizer, latents = made(), moving().flatten(0, 1).requires_grad_()
    weights = torch.randn(latents.shape)
    (quantizer(latents).latent * weights).sum().backward()
    torch.testing.assert_close(latents.grad, weights)


def test_a_scale_is_told_the_prefix_before_it_and_nothing_of_itself():
    quantizer = made()
    codes = quantizer.encode(moving()).flatten(0, 1)
    whole, told = quantizer.embed(codes), quantizer.partials(codes)
    assert [part.shape[-1] for part in told] == [1, 2, 3]
    assert not told[0].any()
    assert torch.equal(told[1], whole[..., [0, 0]])
    assert torch.equal(told[2], whole[..., :3])
    for scale, part in enumerate(told):
        assert torch.equal(part, quantizer.seen_by(quantizer.embed(codes, scale), scale))
        columns = quantizer.pyramid.slices[scale]
        assert torch.equal(quantizer.left_over(whole, part, scale), whole[..., columns])


@pytest.mark.parametrize("grids", [((1, 1), (1, 1)), ((1, 4), (1, 2)), ((1, 1), (2, 2)), ((1, 0),)])
def test_scales_that_do_not_lengthen_a_row_are_errors(grids: tuple):
    with pytest.raises(ValueError, match=r"tokens_1d\.quantizer\.grids=.* must be rows of more and more tokens"):
        PrefixQuantizer(replace(SETTINGS, grids=grids))
