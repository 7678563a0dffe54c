from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from streams.pyav.facts import small_frame
from tests.jpeg import REAL, Chroma, coefficients_of, read_back, synthetic, written
from worldmodel.codecs.dct_transform import BlockTransform, transform_matrix
from worldmodel.codecs.jpeg_tables import quantization_table, zigzag

QUALITIES = (10, 20, 30, 50, 95)


def natural() -> dict[str, Tensor]:
    """Frames of real videos, where there are some."""
    found = {}
    for path in sorted(REAL.glob("*.mp4"))[:4]:
        frame = torch.from_numpy(small_frame(path, 0.3, 256)).movedim(-1, 0)
        found[path.name] = frame[:, : frame.shape[1] // 16 * 16, : frame.shape[2] // 16 * 16].contiguous()
    return found


PICTURES = synthetic() | natural()


def quantised(coefficients: Tensor, quality: int, chroma: bool) -> tuple[Tensor, Tensor]:
    """Values rounded half away from zero, and their steps."""
    step = torch.from_numpy(quantization_table(quality, chroma))[:, None, None]
    value = coefficients.double() / (8 * step)
    return (value.sign() * (value.abs() + 0.5).floor()).int(), step


@pytest.mark.parametrize("chroma", ["half", "full"])
@pytest.mark.parametrize("name", PICTURES)
def test_coefficients_and_pictures_are_those_of_libjpeg_to_the_bit(name: str, chroma: Chroma, tmp_path: Path):
    picture, transform = PICTURES[name], BlockTransform(8, chroma)
    luma, colours = transform(picture[None])
    for quality in QUALITIES:
        data = written(picture, quality, chroma)
        ours, steps = quantised(luma, quality, False)
        blue_and_red, colour_steps = quantised(colours, quality, True)
        for mine, theirs in zip((ours[0, 0], *blue_and_red[0]), coefficients_of(data, tmp_path), strict=True):
            expected = theirs.reshape(*theirs.shape[:2], 64)[..., zigzag(8)]
            assert np.array_equal(mine.movedim(0, -1).numpy(), expected)
        decoded = transform.inverse(ours * steps, blue_and_red * colour_steps)[0]
        assert torch.equal(decoded, read_back(data))


@pytest.mark.parametrize("block", [4, 8, 16])
def test_the_matrix_is_the_orthonormal_transform_but_for_rounding(block: int):
    matrix = transform_matrix(block) / (2**13 * block**0.5)
    assert np.abs(matrix @ matrix.T - np.eye(block)).max() < 4e-4
    samples = np.arange(block)
    for frequency in range(block):
        wave = np.cos(np.pi * (samples + 0.5) * frequency / block)
        assert np.abs(matrix[frequency] - wave / np.linalg.norm(wave)).max() < 2e-4


@pytest.mark.parametrize("chroma", ["half", "full"])
@pytest.mark.parametrize("block", [4, 8, 16])
def test_without_quantisation_luma_comes_back_and_colours_are_as_smooth_as_they_were_kept(block: int, chroma: Chroma):
    transform = BlockTransform(block, chroma)
    frames = torch.stack([synthetic()["noise"], synthetic()["grainy"]])
    luma, colours = transform(frames)
    rebuilt = transform.inverse((luma / block).round().int(), (colours / block).round().int())
    grey = (torch.tensor([0.299, 0.587, 0.114]) @ frames.float().flatten(2), rebuilt.float().flatten(2))
    error = (torch.tensor([0.299, 0.587, 0.114]) @ grey[1] - grey[0]).abs()
    if chroma == "full":
        assert (rebuilt.float() - frames.float()).abs().max() <= 4
        assert error.max() <= 2
    else:
        assert error[1].mean() < 3  # clamped colours cost luma
    flat = torch.full((1, 3, 32, 32), 77, dtype=torch.uint8)
    luma, colours = transform(flat)
    assert torch.equal(luma[:, :, 0], torch.full_like(luma[:, :, 0], (77 - 128) * block**2))
    assert not luma[:, :, 1:].any()
    assert not colours.any()


@pytest.mark.parametrize("block", [4, 8, 16])
def test_no_picture_has_a_coefficient_above_the_peaks_and_the_worst_ones_nearly_reach_them(block: int):
    transform = BlockTransform(block, "full")
    signs = np.sign(transform_matrix(block))
    worst = np.einsum("ur,vc->uvrc", signs, signs).reshape(-1, block, block)[zigzag(block)]
    frames = torch.from_numpy(np.where(worst > 0, 255, 0).astype(np.uint8))[:, None].expand(-1, 3, -1, -1)
    frames = torch.cat((frames, 255 - frames))
    luma, _ = transform(frames)
    reached = luma[:, 0, :, 0, 0].abs().amax(0).double().numpy()
    assert (reached <= transform.peaks).all()
    assert (reached >= 0.98 * transform.peaks).all()


def test_a_change_of_precision_changes_nothing():
    frames = synthetic()["grainy"][None]
    one, other = BlockTransform(8, "half"), BlockTransform(8, "half").bfloat16()
    assert all(torch.equal(a, b) for a, b in zip(one(frames), other(frames), strict=True))


def test_a_frame_is_transformed_the_same_alone_and_in_a_batch():
    transform, frames = BlockTransform(16, "half"), torch.stack(list(synthetic().values()))
    whole = transform(frames)
    for index in range(len(frames)):
        alone = transform(frames[index : index + 1])
        assert all(torch.equal(a[0], b[index]) for a, b in zip(alone, whole, strict=True))
