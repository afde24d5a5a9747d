"""Whether anything outside the robot answers: TCP handshakes with places the robot file names."""

import contextlib
import socket
import threading
from collections.abc import Callable, Sequence

from brainos_ros.robot_spec import Network


class Reach:
    """Tries each place every `period_s`, and gives up on a try that takes longer.

    The robot is cut off once every place failed `misses` times in a row, and no longer as soon as
    one answers. Without places nothing outside is needed, and it is never cut off.
    """

    def __init__(self, network: Network, changed: Callable[[Sequence[str]], object]) -> None:
        """`changed` gets the places that do not answer when it is cut off, and none when not."""
        self._network, self._changed = network, changed
        self._failed = dict.fromkeys(network.reach, 0)
        self._cut_off = False
        self._lock = threading.Lock()
        self._closed = threading.Event()
        for place in network.reach:
            threading.Thread(target=self._watch, args=(place,), name="reach", daemon=True).start()

    def close(self) -> None:
        """No further calls of `changed`; a try that hangs ends by itself."""
        with self._lock:
            self._closed.set()

    def _watch(self, place: str) -> None:
        period_s = self._network.period_s
        trying = None
        while not self._closed.is_set():
            answered = threading.Event()
            if trying is None or not trying.is_alive():  # nobody waits any more for one that hangs
                trying = threading.Thread(
                    target=_try, args=(place, period_s, answered), name="reach", daemon=True)
                trying.start()
            trying.join(period_s)
            self._note(place, 0 if answered.is_set() else self._failed[place] + 1)
            self._closed.wait(period_s)

    def _note(self, place: str, failed: int) -> None:
        with self._lock:
            self._failed[place] = failed
            cut_off = min(self._failed.values()) >= self._network.misses
            if cut_off != self._cut_off and not self._closed.is_set():
                self._cut_off = cut_off
                self._changed(tuple(self._failed) if cut_off else ())


def _try(place: str, timeout_s: float, answered: threading.Event) -> None:
    """To look up a name may take longer than `timeout_s`, and so may a host with many addresses."""
    host, _, port = place.rpartition(":")
    with contextlib.suppress(OSError, ValueError):  # the latter for what cannot be a host's name
        socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()
        answered.set()
