"""What libjpeg makes of a picture, by Pillow and jpeglib, and pictures for it."""

import io
from pathlib import Path
from typing import Literal

import jpeglib
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from streams.clip import to_uint8

REAL = Path(__file__).resolve().parents[1] / "../shared/videos"
Chroma = Literal["half", "full"]
SUBSAMPLING = {"half": 2, "full": 0}  # Pillow's names of 4:2:0 and 4:4:4


def synthetic(height: int = 64, width: int = 96) -> dict[str, Tensor]:
    """Pictures (3, height, width) from 0 to 255: smooth and grainy; noise; black and white noise of full contrast."""
    generator = np.random.default_rng(0)
    row, column = np.mgrid[:height, :width]
    waves = np.stack([np.sin(row / 5 + column / 7), np.cos(column / 9), np.sin(row * column / 300)])
    grainy = waves * 100 + 128 + generator.normal(0, 10, (3, height, width))
    noise = generator.integers(0, 256, (3, height, width))
    return {
        "grainy": torch.from_numpy(grainy.clip(0, 255).astype(np.uint8)),
        "noise": torch.from_numpy(noise.astype(np.uint8)),
        "contrast": torch.from_numpy(((noise > 127) * 255).astype(np.uint8)),
    }


def moving(num_frames: int = 6, height: int = 32, width: int = 48) -> Tensor:
    """A clip (frame, 3, height, width) from -1 to 1: a bright square goes over a still, textured ground, with noise."""
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    ground = torch.stack([torch.sin(row / 3 + 2), torch.cos(column / 4.0), torch.sin(row * column / 90)]) * 0.4
    frames = ground.expand(num_frames, -1, -1, -1).clone()
    for frame in range(num_frames):
        frames[frame, :, 8:20, 2 * frame : 2 * frame + 12] = torch.tensor([0.9, 0.2, -0.3])[:, None, None]
    noise = torch.randn(frames.shape, generator=torch.Generator().manual_seed(0)) * 0.02
    return to_uint8(frames + noise) / 127.5 - 1


def written(picture: Tensor, quality: int, chroma: Chroma) -> bytes:
    """A picture as libjpeg writes it."""
    file = io.BytesIO()
    Image.fromarray(picture.movedim(0, -1).numpy()).save(file, "JPEG", quality=quality, subsampling=SUBSAMPLING[chroma])
    return file.getvalue()


def read_back(data: bytes) -> Tensor:
    """The picture (3, height, width) that libjpeg decodes."""
    return torch.from_numpy(np.array(Image.open(io.BytesIO(data)))).movedim(-1, 0)


def coefficients_of(data: bytes, folder: Path) -> list[np.ndarray]:
    """Quantised coefficients (row, column, 8, 8) of luma and both chromas in a JPEG, as libjpeg reads them."""
    path = folder / "picture.jpg"
    path.write_bytes(data)
    read = jpeglib.read_dct(str(path))
    return [read.Y, read.Cb, read.Cr]


def num_scan_bytes(data: bytes) -> int:
    """Entropy-coded bytes of a JPEG, without the zeros stuffed behind bytes of 255."""
    at = 2
    while data[at + 1] != 0xDA:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    start = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return len(data[start:-2].replace(b"\xff\x00", b"\xff"))
