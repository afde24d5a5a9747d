"""Heartbeats between processes of one machine: datagrams, a fraction of what messages cost.

The watchdog listens on a Unix socket (SOCK_SEQPACKET, unix(7)) with an abstract name made from the
brain's state directory; each node of that brain connects to it. A datagram is msgpack: [steady time
of the beat (s), node, lifecycle state, last failure]. Which process sent it, the kernel says
(SO_PEERCRED): nobody beats for another. Each connection has a queue of its own, of some hundred
beats, so that one process cannot crowd out the rest, and what nobody reads costs nothing.
"""

import contextlib
import errno
import hashlib
import os
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgpack

from brainos_ros.errors import BrainError

LONGEST = 4096  # bytes of a beat
MOST_AT_ONCE = 64  # beats taken from one process, connections that wait to be taken up
CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
KIND = socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK


def abstract_name(*parts: str) -> str:
    """A socket's abstract name (unix(7)) for these parts, however long they are."""
    return "\0brainos/" + hashlib.sha256(os.fsencode("\0".join(parts))).hexdigest()[:32]


def address(home: Path) -> str:
    """Where the heartbeats of the brain whose state is in `home` go."""
    return abstract_name("heartbeats", str(home.absolute()))


class Beat(NamedTuple):
    """One heartbeat that came: sender's pid, steady time it was sent [s], lifecycle_msgs/State."""

    pid: int
    at: float
    node: str
    state: int
    last_failure: str


class Pulse:
    """Sends a node's beats; never blocks, never raises, whoever listens or not."""

    def __init__(self, home: Path) -> None:
        self._address = address(home)
        self._socket: socket.socket | None = None

    def send(self, at: float, node: str, state: int, last_failure: str) -> None:
        """A beat at `at` [s, steady]."""
        try:
            if self._socket is None:
                made = socket.socket(socket.AF_UNIX, KIND)
                try:
                    made.connect(self._address)
                except OSError:
                    made.close()
                    raise
                self._socket = made
            self._socket.send(msgpack.packb((at, node, state, last_failure)))
        except BlockingIOError:
            pass  # the listener stands still
        except OSError:
            self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def claim(name: str, what: str) -> socket.socket:
    """A socket with an abstract name that one process can have, until its end.

    Raises `BrainError` if another one has it: `what` says what that one is; OSError.
    """
    made = socket.socket(socket.AF_UNIX, KIND)
    try:
        made.bind(name)
        made.listen(MOST_AT_ONCE)
        return made
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            made.close()
            raise
        holder = ""
        with contextlib.suppress(OSError):
            made.connect(name)
            holder = f"; its watchdog is process {_peer(made)[0]}"
        made.close()
        raise BrainError(f"{what}{holder}") from error


def claim_brain(domain: str, namespace: str) -> socket.socket:
    """Be the only brain in a ROS domain and namespace (`/r1`), until the socket is closed.

    Raises `BrainError` if there is one.
    """
    return claim(
        abstract_name("watchdog", domain, namespace),
        f"another brain runs in ROS domain {domain}, namespace {namespace}; stop that one, or give "
        "this one a ROS_DOMAIN_ID or a namespace of its own")


def _peer(connection: socket.socket) -> tuple[int, int]:
    """Process and user id at the other end, by the kernel's word."""
    pid, uid, _ = CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
    return pid, uid


class Pulses:
    """Hears the beats of the same user's processes. Raises `BrainError` if somebody else does."""

    def __init__(self, home: Path) -> None:
        self._socket = claim(address(home), f"another watchdog hears the nodes of {home}")
        self._connections: dict[int, tuple[socket.socket, int]] = {}  # with the pid, by descriptor
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def take(self) -> Iterator[Beat]:
        """What came since the last time."""
        left = MOST_AT_ONCE
        while left and (ready := self._poll.poll(0)):
            left -= 1
            for fd, _ in ready:
                if fd == self._socket.fileno():
                    self._accept()
                    continue
                connection, pid = self._connections[fd]
                data = self._receive(connection)
                if not data:
                    self._poll.unregister(fd)
                    del self._connections[fd]
                    connection.close()
                elif beat := _read(pid, data):
                    yield beat

    def _accept(self) -> None:
        connection, _ = self._socket.accept()
        pid, uid = _peer(connection)
        if uid == os.geteuid():
            connection.setblocking(False)
            self._connections[connection.fileno()] = (connection, pid)
            self._poll.register(connection, select.POLLIN)
        else:
            connection.close()

    @staticmethod
    def _receive(connection: socket.socket) -> bytes:
        try:
            return connection.recv(LONGEST)
        except ConnectionError:
            return b""

    def close(self) -> None:
        for connection, _ in self._connections.values():
            connection.close()
        self._socket.close()
        self._connections.clear()


def _read(pid: int, data: bytes) -> Beat | None:
    """None if it is no beat."""
    try:
        beat = Beat(pid, *msgpack.unpackb(data))
    except (ValueError, TypeError):
        return None
    kinds = (int, float, str, int, str)
    return beat if all(map(isinstance, beat, kinds)) else None
