import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from streams.clip import to_float, to_uint8
from tests.jpeg import read_back, written
from tests.worldmodel.tiny import CLIPS, GRIDS, LATENT_DIM, PICTURE, QUANTIZER, VOCABULARY, codebooks_of, tiny_quantizer
from worldmodel.codecs.picture import PictureVQ, ResidualBlock
from worldmodel.settings import PictureCodecSettings


def tiny_codec() -> PictureVQ:
    torch.manual_seed(0)
    return PictureVQ(PICTURE, CLIPS).eval()


def squares(num_frames: int, seed: int = 0) -> Tensor:
    """Frames of a bright 6x6 square on a dark ground."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.full((num_frames, 3, CLIPS.height, CLIPS.width), -0.8)
    for frame, (row, column) in zip(
        frames, torch.randint(11, (num_frames, 2), generator=generator).tolist(), strict=True
    ):
        frame[:, row : row + 6, column : column + 6] = torch.tensor([0.9, 0.2, -0.3])[:, None, None]
    return frames


def test_frames_become_a_pyramid_of_codes_and_frames_again():
    codec, frames = tiny_codec(), squares(6).unflatten(0, (2, 3))
    codes = codec.encode(frames)
    assert codes.shape == (2, 3, codec.pyramid.num_codes) == (2, 3, 21)
    assert codes.dtype == torch.int64
    assert 0 <= int(codes.min()) <= int(codes.max()) < VOCABULARY
    assert [(scale.height, scale.width, scale.vocabulary) for scale in codec.pyramid.scales] == [
        (*grid, VOCABULARY) for grid in GRIDS
    ]
    assert codec.latent(frames).shape == (2, 3, LATENT_DIM, *GRIDS[-1])
    decoded = codec.decode(codes)
    assert decoded.shape == frames.shape
    assert decoded.abs().max() <= 1
    reconstruction, quantized = codec(frames.flatten(0, 1))
    assert reconstruction.shape == (6, 3, 16, 16)
    assert quantized.codes.shape == (6, 21)


@pytest.mark.parametrize(
    ("size", "grids"), [((16, 32), ((1, 2), (4, 8))), ((32, 32), GRIDS), ((64, 32), ((1, 1), (4, 2)))]
)
@torch.no_grad()
def test_every_size_that_fits_is_halved_down_to_its_grid(size: tuple[int, int], grids: tuple[tuple[int, int], ...]):
    settings = dataclasses.replace(PICTURE, quantizer=dataclasses.replace(QUANTIZER, grids=grids))
    codec = PictureVQ(settings, dataclasses.replace(CLIPS, height=size[0], width=size[1])).eval()
    frames = torch.rand(1, 2, 3, *size) * 2 - 1
    assert codec.latent(frames).shape == (1, 2, LATENT_DIM, *grids[-1])
    assert codec.decode(codec.encode(frames)).shape == frames.shape


@pytest.mark.parametrize(("height", "width"), [(17, 16), (16, 17), (8, 8), (48, 48), (32, 16), (16, 32)])
def test_a_size_that_does_not_fit_the_grid_is_an_error(height: int, width: int):
    with pytest.raises(ValueError, match=f"frames of {height}x{width} do not fit a finest grid of 4x4: each side must"):
        PictureVQ(PICTURE, dataclasses.replace(CLIPS, height=height, width=width))


def test_a_clip_is_encoded_in_the_order_of_its_frames():
    codec, frames = tiny_codec(), squares(5)[None]
    codes, previous = codec.encode(frames), None
    for frame in range(5):
        step = codec.encode(frames[:, frame : frame + 1], previous)
        assert torch.equal(step[:, 0], codes[:, frame])
        previous = step[:, 0]
    assert torch.equal(codes, codec.quantizer.encode(codec.latent(frames)))


@torch.no_grad()
@pytest.mark.parametrize("num_frames", [2, 5, 6])
def test_every_view_is_encoded_in_its_own_order_and_as_far_as_it_is_wanted(num_frames: int):
    codec = tiny_codec()
    codec.quantizer = tiny_quantizer()
    frames = squares(2 * num_frames).unflatten(0, (2, num_frames))
    half = num_frames // 2
    expected = [codec.encode(view) for view in (frames, frames.flip(1), frames[:, : 2 * half : 2])]
    for view, other in zip(codec.encode_views(frames), expected, strict=True):
        assert torch.equal(view, other)
    lengths = [[num_frames, 1], [2, num_frames], [half, 1]]
    for view, other, wanted in zip(codec.encode_views(frames, lengths), expected, lengths, strict=True):
        for clip in range(2):
            assert torch.equal(view[clip, : wanted[clip]], other[clip, : wanted[clip]])
            assert not view[clip, wanted[clip] :].any()


def test_decoding_equals_the_reconstruction_where_no_code_is_sticky():
    codec, frames = tiny_codec(), squares(4)
    reconstruction, quantized = codec(frames)
    decoded = codec.decode(quantized.codes[None])[0]
    torch.testing.assert_close(decoded, reconstruction.clamp(-1, 1), atol=1e-5, rtol=1e-5)


def test_fewer_scales_read_no_finer_codes():
    codec, codes = tiny_codec(), tiny_codec().encode(squares(2)[None])
    other = codes.clone()
    other[..., 5:] = 0
    assert torch.equal(codec.decode(codes, num_scales=2), codec.decode(other, num_scales=2))
    assert not torch.equal(codec.decode(codes, num_scales=2), codec.decode(codes))


def test_encoding_needs_no_gradient_and_moves_no_codebook_even_in_training_mode():
    codec = tiny_codec().train()
    before = codebooks_of(codec.quantizer)[0].vectors.clone()
    codes = codec.encode(squares(3)[None])
    assert not codec.decode(codes).requires_grad
    assert torch.equal(codebooks_of(codec.quantizer)[0].vectors, before)


@pytest.mark.parametrize("quality", [10, 30])
def test_with_a_jpeg_quality_the_encoder_sees_what_libjpeg_decodes(quality: int):
    plain = tiny_codec()
    codec = PictureVQ(dataclasses.replace(PICTURE, jpeg_quality=quality), CLIPS).eval()
    codec.load_state_dict(plain.state_dict(), strict=False)
    frames = squares(3)
    seen = torch.stack([read_back(written(frame, quality, "half")) for frame in to_uint8(frames)])
    assert not torch.equal(to_uint8(frames), seen)
    torch.testing.assert_close(codec.latent(frames[None]), plain.latent(to_float(seen)[None]))
    codec.train()
    reconstruction, quantized = codec(frames)
    (F.mse_loss(reconstruction, frames) + quantized.loss).backward()
    assert any(weight.grad is not None and weight.grad.any() for weight in codec.encoder.parameters())


@torch.no_grad()
def test_a_residual_block_starts_as_the_identity():
    x = torch.randn(2, 16, 4, 4)
    torch.testing.assert_close(ResidualBlock(16)(x), x)


def test_every_weight_receives_a_gradient():
    codec = tiny_codec().train()
    for block in codec.modules():
        if isinstance(block, ResidualBlock):
            torch.nn.init.normal_(block.second.weight, std=0.1)
    reconstruction, quantized = codec(squares(8))
    (F.mse_loss(reconstruction, squares(8)) + quantized.loss).backward()
    assert [name for name, weight in codec.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def test_thirty_steps_on_a_world_of_squares_cut_the_error_to_a_third():
    torch.manual_seed(0)
    codec = PictureVQ(PictureCodecSettings(channels=16, quantizer=dataclasses.replace(QUANTIZER, dim=8)), CLIPS).train()
    optimizer = torch.optim.Adam(codec.parameters(), lr=5e-3)
    held_out = squares(32, seed=10**6)

    def error() -> float:
        with torch.no_grad():
            return float(F.mse_loss(codec.decode(codec.encode(held_out[:, None]))[:, 0], held_out))

    before = error()
    for step in range(30):
        frames = squares(16, seed=step)
        reconstruction, quantized = codec(frames)
        optimizer.zero_grad()
        (F.mse_loss(reconstruction, frames) + 0.25 * quantized.loss).backward()
        optimizer.step()
    assert error() < before / 3
    assert error() < float(held_out.var()) / 2  # and better than one grey for all
