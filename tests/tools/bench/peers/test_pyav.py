from tests.tools.bench.peers.suite import check_full_size, check_square
from tools.bench.footage import Footage
from tools.bench.peers.pyav import CONTENDER


def test_frames_are_the_right_ones(footage: list[Footage]):
    check_full_size(CONTENDER, footage[0])


def test_frames_are_cut_and_scaled(footage: list[Footage]):
    check_square(CONTENDER, footage[0])
