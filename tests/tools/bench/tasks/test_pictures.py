from collections.abc import Sequence

import torch

from tools.bench.footage import Footage
from tools.bench.settings import StreamsSettings
from tools.bench.tasks.pictures import clips_within, draw, in_order, random_clips


def test_draws_stay_inside_the_file_and_are_the_same_for_everyone():
    for stride in (1, 4):
        clips = draw(70, stride, 2000, seed=3)
        assert clips == draw(70, stride, 2000, seed=3)
        assert all(len(clip) == 16 and clip.step == stride and clip[0] >= 0 and clip[-1] < 70 for clip in clips)
        assert min(clip[0] for clip in clips) == 0
        assert max(clip[-1] for clip in clips) == 69


def test_all_contenders_read_every_file(footage: list[Footage], settings: StreamsSettings):
    races = [*in_order(footage, settings), *random_clips(footage, settings)]
    assert [race.task for race in races] == ["in_order", "random, stride 1", "random, stride 4"]
    for race in races:
        assert race.footage == "64p GOP 12"
        assert set(race.costs) == set(race.forms) == {"ours", "torchcodec", "decord", "pyav"}
        assert all(len(costs) == settings.rounds and min(costs) > 0 for costs in race.costs.values())


class Recorder:
    """Pictures that only remember what they were asked."""

    def __init__(self) -> None:
        self.asked: list[Sequence[int]] = []

    def num_frames(self) -> int:
        return 90

    def clip(self, indices: Sequence[int]) -> torch.Tensor:
        self.asked.append(indices)
        sum(range(20_000))
        return torch.zeros(len(indices), 3, 2, 2, dtype=torch.uint8)

    def close(self) -> None:
        pass


def test_the_number_of_clips_has_bounds():
    pictures = Recorder()
    assert clips_within(0.0, pictures, 90, 1) == 2
    assert clips_within(1e6, pictures, 90, 1) == 64
    assert len(pictures.asked) == 6
