import socket

import pytest

from worldmodel.errors import LostProcessError
from worldmodel.training import peers
from worldmodel.training.cluster import Ranks
from worldmodel.training.peers import Company, Peer


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def company(monkeypatch: pytest.MonkeyPatch, listener: socket.socket) -> list[Peer]:
    """Process 1 listens, process 2 does not, and the machine of process 3 is on no network."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    found = [
        Peer(1, "n1", "127.0.0.1", listener.getsockname()[1]),
        Peer(2, "n2", "127.0.0.1", port),
        Peer(3, "n3", "255.255.255.255", 9),  # no connection leads there
    ]
    monkeypatch.setattr(peers, "company", Company(found))
    monkeypatch.setattr(peers, "PROBE_SECONDS", 0.5)
    return found


def test_who_is_gone_is_told_from_who_runs(company: list[Peer]):
    gone, unreachable, running = peers.states()
    assert gone == "process 2 on n2 (127.0.0.1) has ended"
    assert unreachable.startswith("process 3 on n3 (255.255.255.255) cannot be reached (")
    assert running == "process 1 on n1 (127.0.0.1) runs, and does not answer"


def test_of_many_a_few_are_named(company: list[Peer], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(peers, "MAX_NAMED", 1)
    assert peers.states() == ["process 2 on n2 (127.0.0.1) has ended", "2 more"]


def test_the_loss_of_a_connection_says_who_is_gone_and_what_to_do(company: list[Peer]):
    said = (
        r"process 0 on .* waited for the others in vain \(\[gloo/pair.cc\] Connection closed\): process 2 on n2 .* has "
    )
    said += r"ended; .*; see to the machines named and to the network .* again with --resume runs/world, it goes on"
    with pytest.raises(LostProcessError, match=said), peers.missed(peers.advice("runs/world")):
        raise RuntimeError("[gloo/pair.cc]\nConnection closed")


def test_an_error_of_another_kind_stays_what_it_is():
    with pytest.raises(RuntimeError, match="shapes do not fit"), peers.missed(peers.advice("runs/world")):
        raise RuntimeError("shapes do not fit")


def test_one_process_has_no_company(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(peers, "company", Company())
    peers.meet()
    assert peers.company == Company()
    assert peers.states() == []


def test_every_process_learns_where_the_others_are(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(peers, "company", Company())
    monkeypatch.setattr(peers.cluster, "find_ranks", lambda: Ranks(0, 2, 0, "127.0.0.1", 1))
    monkeypatch.setattr(peers.cluster, "texts", lambda own: [own, "n2 10.0.0.2 4000"])
    peers.meet()
    assert peers.company.peers == [Peer(1, "n2", "10.0.0.2", 4000)]
    listener = peers.company.listener
    assert listener is not None
    assert Peer(0, "n1", "127.0.0.1", listener.getsockname()[1]).state() == peers.RUNS
    listener.close()


def test_the_machine_of_the_meeting_point_goes_by_its_name():
    assert peers.own_address("127.0.0.1") == (socket.AF_INET, "127.0.0.1")
    assert peers.own_address("localhost")[1] == "localhost"
