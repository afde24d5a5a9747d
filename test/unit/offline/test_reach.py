"""What outside the robot answers, tried with servers of this test on this machine."""

import queue
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest

from brainos_ros.offline.reach import Reach
from brainos_ros.robot_spec import Network

LIMIT_S = 10.0
Told = queue.SimpleQueue[Sequence[str]]


def server(port: int = 0) -> socket.socket:
    return socket.create_server(("127.0.0.1", port))


def place(listening: socket.socket) -> str:
    return f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def told() -> Told:
    return queue.SimpleQueue()


@pytest.fixture
def two(told: Told) -> Iterator[tuple[socket.socket, socket.socket]]:
    with server() as one, server() as other:
        network = Network((place(one), place(other)), period_s=0.05, misses=2)
        with closing(Reach(network, told.put)):
            yield one, other


def test_one_that_answers_is_enough(two: tuple[socket.socket, socket.socket], told: Told) -> None:
    one, other = two
    places = [place(one), place(other)]
    one.close()
    with pytest.raises(queue.Empty):
        told.get(timeout=0.5)
    port = other.getsockname()[1]
    other.close()
    assert list(told.get(timeout=LIMIT_S)) == places
    with server(port):
        assert list(told.get(timeout=LIMIT_S)) == []


def test_a_place_that_swallows_packets_does_not_answer(told: Told) -> None:
    """A full backlog drops further handshakes, as a cut link does."""
    with socket.socket() as deaf, socket.socket() as waiting:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        waiting.connect(deaf.getsockname())
        network = Network((place(deaf),), period_s=0.1, misses=2)
        with closing(Reach(network, told.put)):
            assert list(told.get(timeout=LIMIT_S)) == [place(deaf)]
            deaf.accept()[0].close()
            assert list(told.get(timeout=LIMIT_S)) == []


@pytest.mark.parametrize("named", ["nobody.invalid:80", "a..b:22"])
def test_a_name_nobody_knows_does_not_answer(told: Told, named: str) -> None:
    with closing(Reach(Network((named,), 0.05, 2), told.put)):
        assert list(told.get(timeout=60.0)) == [named]


def test_a_look_up_that_hangs_is_a_try_that_failed(
        told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    look_up, asked, goes_on = socket.getaddrinfo, [], threading.Event()

    def hangs(host: str, *more: Any) -> Any:
        asked.append(host)
        goes_on.wait(60.0)
        return look_up("127.0.0.1", *more)

    with server() as listening:
        port = listening.getsockname()[1]
        monkeypatch.setattr(socket, "getaddrinfo", hangs)
        with closing(Reach(Network((f"fleet.local:{port}",), 0.1, 3), told.put)):
            began = time.monotonic()
            assert list(told.get(timeout=LIMIT_S)) == [f"fleet.local:{port}"]
            assert time.monotonic() - began >= 0.5, "so many misses"
            assert asked == ["fleet.local"], "one hangs at a time"
            goes_on.set()
            assert list(told.get(timeout=LIMIT_S)) == []
            assert len(asked) > 1, "what answers too late does not count"


def test_without_places_it_is_never_cut_off(told: Told) -> None:
    with closing(Reach(Network((), 0.01, 1), told.put)), pytest.raises(queue.Empty):
        told.get(timeout=0.2)


def test_a_closed_one_says_nothing_more(told: Told) -> None:
    with server() as listening:
        reach = Reach(Network((place(listening),), 0.05, 1), told.put)
    reach.close()
    while not told.empty():
        told.get()
    with pytest.raises(queue.Empty):
        told.get(timeout=0.3)
