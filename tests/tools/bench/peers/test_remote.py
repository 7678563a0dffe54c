import time
from contextlib import closing
from pathlib import Path

from tools.bench.footage import Footage
from tools.bench.peers.remote import RemotePictures, server_of

FORM = "get_batch, torch's resize"


def test_costs_come_back_and_opening_is_in_the_first(footage: list[Footage]):
    with closing(RemotePictures("decord", FORM, footage[0].path, 32)) as pictures:
        assert pictures.num_frames() == 90
        opening = pictures.owed_seconds
        assert opening > 0
        first, second = pictures.clip(range(16)), pictures.clip([50, 54])
    assert (first.units, second.units) == (16, 2)
    assert first.seconds > opening
    assert second.seconds > 0


def test_the_process_rests_while_it_is_not_asked(footage: list[Footage]):
    with closing(RemotePictures("decord", FORM, footage[0].path, 32)) as pictures:
        pictures.clip(range(16))
        # After the name in brackets: the state, and among others the ticks in user and system mode.
        stat = Path(f"/proc/{server_of('decord').process.pid}/stat")
        before = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
        time.sleep(0.3)
        after = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
        assert after[0] == "T"  # stopped
        assert after[11:13] == before[11:13]
