"""Whether anything outside the robot answers: TCP handshakes with places the robot file names."""

import socket
import threading
from collections.abc import Callable, Sequence

from brainos_ros.robot_spec import Network


class Reach:
    """Tries each place every `period_s`, for at most that long, each on a thread of its own.

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
        host, _, port = place.rpartition(":")
        while not self._closed.is_set():
            try:
                address = (host.strip("[]"), int(port))
                socket.create_connection(address, self._network.period_s).close()
                self._note(place, 0)
            except (OSError, ValueError):  # the latter for what cannot be a host's name
                self._note(place, self._failed[place] + 1)
            self._closed.wait(self._network.period_s)

    def _note(self, place: str, failed: int) -> None:
        with self._lock:
            self._failed[place] = failed
            cut_off = min(self._failed.values()) >= self._network.misses
            if cut_off != self._cut_off and not self._closed.is_set():
                self._cut_off = cut_off
                self._changed(tuple(self._failed) if cut_off else ())
