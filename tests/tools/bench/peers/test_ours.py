from tests.tools.bench.peers.suite import check_full_size, check_sound, check_square
from tools.bench.footage import Footage
from tools.bench.peers.ours import CONTENDER, Sound


def test_frames_are_the_right_ones(footage: list[Footage]):
    check_full_size(CONTENDER, footage[0])


def test_frames_are_cut_and_scaled(footage: list[Footage]):
    check_square(CONTENDER, footage[0])


def test_sound_is_that_of_the_file(footage: list[Footage]):
    check_sound(Sound, footage[0])
