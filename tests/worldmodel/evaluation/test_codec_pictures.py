import numpy as np
import pytest
import torch
from torch import Tensor

from streams.clip import to_float, to_uint8
from streams.settings import ClipSettings
from worldmodel.evaluation.codec_pictures import measure_pictures, picture_of, quality_of
from worldmodel.evaluation.references import jpeg_with
from worldmodel.layout import Pyramid, Scale

CPU = torch.device("cpu")


class Mosaic:
    """Mean grey of the frame and then of 4x4 patches in 16 levels: worked out by hand below."""

    kind = "picture"
    pyramid = Pyramid((Scale(1, 1, 16), Scale(4, 4, 16)))
    clips = ClipSettings(height=16, width=16)

    def encode(self, frames: Tensor) -> Tensor:
        grey = ((frames.mean(2) + 1) * 7.5).round()
        patches = torch.nn.functional.avg_pool2d(grey, 4).flatten(2)
        return torch.cat((patches.mean(2, keepdim=True), patches), 2).round().long()

    def decode(self, codes: Tensor, num_scales: int | None = None) -> Tensor:
        grey = codes[..., :1].expand(-1, -1, 16) if num_scales == 1 else codes[..., 1:]
        small = grey.unflatten(2, (1, 4, 4)).float() / 7.5 - 1
        return small.repeat_interleave(4, 3).repeat_interleave(4, 4).expand(-1, -1, 3, -1, -1)


def films() -> Tensor:
    """Grey patches that Mosaic keeps nearly as they are; one patch of the second film moves."""
    levels = torch.randint(0, 16, (3, 1, 1, 4, 4), generator=torch.Generator().manual_seed(0)).expand(3, 5, 3, 4, 4)
    frames = (levels * 17).to(torch.uint8).repeat_interleave(4, 3).repeat_interleave(4, 4).clone()
    for frame in range(5):
        frames[1, frame, :, :4, :4] = 51 * frame
    return frames


def test_a_codec_that_keeps_everything_is_at_the_cap_and_stands_still():
    measured = measure_pictures(Mosaic(), films(), ["a", "b", "c"], CPU, 0)
    measures = measured.measures
    assert torch.equal(measured.coded.decoded, films())
    assert measures["psnr"] == {"mean": 60.0, "low": 60.0, "high": 60.0}
    assert measures["ssim"]["mean"] == pytest.approx(1.0)
    assert measures["still_finest_codes"] == {"num_still": 3 * 4 * 16 - 4, "num_changed": 0, "changed": 0.0}
    assert measures["tokens_per_frame"] == 17
    assert measures["bits_per_pixel"] == min(measures["bits_per_frame"].values()) / 256


def test_references_have_the_bits_of_the_codec():
    measures = measure_pictures(Mosaic(), films(), ["a", "b", "c"], CPU, 0).measures
    bits = measures["bits_per_frame"]
    expected = jpeg_with(films(), bits["alone"])
    assert measures["jpeg"]["bits_per_frame"] == expected.bits_per_frame
    assert measures["jpeg"]["psnr"] == quality_of(expected.frames, films(), ["a", "b", "c"], 0)["psnr"]
    assert measures["h264"]["bits_per_frame"] <= min(bits.values()) or not measures["h264"]["fits"]


def test_odd_sizes_have_no_h264():
    class Odd(Mosaic):
        clips = ClipSettings(height=15, width=15)

        def decode(self, codes: Tensor, num_scales: int | None = None) -> Tensor:
            return super().decode(codes, num_scales)[..., :15, :15]

        def encode(self, frames: Tensor) -> Tensor:
            return super().encode(torch.nn.functional.pad(frames.flatten(1, 2), (0, 1, 0, 1)).unflatten(1, (-1, 3)))

    found = measure_pictures(Odd(), films()[..., :15, :15].contiguous(), ["a", "b", "c"], CPU, 0)
    assert "h264" not in found.measures
    assert found.references.keys() == {"jpeg"}


def test_quality_is_that_of_the_textbook():
    frames = torch.full((2, 3, 3, 16, 16), 100, dtype=torch.uint8)
    found = quality_of(frames + 10, frames, ["a", "b"], 0)
    assert found["psnr"]["mean"] == pytest.approx(20 * np.log10(255 / 10))
    assert 0.9 < found["ssim"]["mean"] < 1


def test_the_picture_has_the_truth_every_codec_the_references_and_the_scales():
    codec, frames = Mosaic(), films()
    measured = measure_pictures(codec, frames, ["a", "b", "c"], CPU, 0)
    shown = np.asarray(picture_of({"mosaic": (codec, measured)}, frames, CPU)).astype(int)
    cell = 7 * 16 + 2
    header = 16
    assert shown.shape[0] == header + 6 * cell  # truth, codec, JPEG, H.264, one scale, two scales
    left = shown.shape[1] - 3 * cell
    truth, kept = (shown[header + row * cell :, left:][: cell - 2, : cell - 2] for row in (0, 1))
    np.testing.assert_array_equal(truth, kept)
    np.testing.assert_array_equal(truth[3, 3], frames[0, 2, :, 0, 0])
    grey = to_uint8(codec.decode(codec.encode(to_float(frames[:, 2:3])), 1))[0, 0, :, 0, 0]
    one_scale = shown[header + 4 * cell :, left:][: cell - 2, : cell - 2]
    assert (one_scale == grey.numpy()).all()
