import numpy as np
import torch

from tools.bench.peers.contender import to_square


def test_the_middle_is_kept_and_averaged():
    frames = torch.zeros(1, 3, 8, 16, dtype=torch.uint8)
    frames[..., 4:12] = torch.arange(8, dtype=torch.uint8)[:, None] // 4 * 100
    square = to_square(frames, 2).numpy()
    assert square.shape == (1, 3, 2, 2)
    assert (square[0, :, 0] < 30).all()
    assert (square[0, :, 1] > 70).all()


def test_layout_in_memory_does_not_change_the_result():
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 24, 42, 3), dtype=np.uint8)).permute(
        0, 3, 1, 2
    )
    difference = to_square(frames, 12).int() - to_square(frames.contiguous(), 12).int()
    assert difference.abs().max() <= 1


def test_full_size_is_left_alone():
    frames = torch.zeros(1, 3, 8, 16, dtype=torch.uint8)
    assert to_square(frames, None) is frames
