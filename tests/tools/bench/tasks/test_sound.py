from collections.abc import Sequence

from tools.bench.footage import Footage
from tools.bench.race import Work
from tools.bench.settings import StreamsSettings
from tools.bench.tasks.sound import clips_with_sound, draw_numbers


def test_clips_with_sound_are_raced(footage: list[Footage], settings: StreamsSettings):
    [race] = clips_with_sound(footage, settings)
    assert (race.task, list(race.costs)) == ("with_sound", ["ours", "torchcodec"])
    assert all(len(costs) == settings.rounds and min(costs) > 0 for costs in race.costs.values())


def test_every_round_has_its_own_clips(settings: StreamsSettings):
    def read(draws: Sequence[Sequence[int]], number: int) -> Work:
        assert all(0 <= clip < 6 for clip in draws[number])
        yield sum(range(50_000)) * 0 + len(draws[number])

    draws = draw_numbers(read, 6, settings)
    assert len(draws) == settings.rounds
    assert draws[0] != draws[1]
    assert all(0 <= number < 6 for draw in draws for number in draw)
