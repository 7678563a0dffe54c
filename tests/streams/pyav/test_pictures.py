from pathlib import Path

import torch

from streams.pyav.pictures import PyAVReader


def test_frames_at_random_are_those_in_order(ours: Path):
    with PyAVReader(ours) as reader:
        ordered = reader.frames_at(range(48))
        for index in (40, 3, 3, 47, 0, 31):
            assert torch.equal(reader.frames_at([index])[0], ordered[index])
