"""A fork server: processes forked from one that has imported what they need, so that they begin
half a second sooner and share its memory.

It is a fork of the watchdog, made before that has threads, sockets or a ROS context. What it forks
runs what `python -c CODE ARGUMENTS` would, and shows that command line in proc(5): whoever looks
for a node finds it, however it was started. It begins once the watchdog, which has its pid by then,
says so; one that nobody waits for any more ends.

It runs the code that was on the disk when the watchdog started. Where the kernel does not let a
process change the command line it shows (prctl(2) PR_SET_MM_MAP, which is part of
CONFIG_CHECKPOINT_RESTORE), and once the server did not answer, there is none.
"""

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Never

from brainos_ros.watchdog import notify
from brainos_ros.watchdog.processes import Process, start_time

ANSWER_S = 0.1  # a fork takes some ms; who waits holds the watchdog's lock
TITLE = (sys.executable, "-c", "'the fork server of a BrainOS watchdog'")
_LONGEST = 65536  # bytes of a request
_PR_SET_MM, _PR_SET_MM_MAP = 35, 14
_MM_MAP = struct.Struct("=12Q2I")  # struct prctl_mm_map
_shown: ctypes.Array[ctypes.c_char]  # the command line that the kernel shows must stay in memory


class ForkServer:
    """The watchdog's end of it. Not thread-safe."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self._pid = pid
        self._channel: socket.socket | None = channel
        self._ready = False

    def ready(self, timeout_s: float = 0.0) -> bool:
        """Whether it has imported everything, waiting for that for `timeout_s`."""
        waiting = self._channel if not self._ready else None
        if waiting and select.select([waiting], [], [], timeout_s)[0]:
            self._ready = bool(waiting.recv(1))
            if not self._ready:
                self.close()
        return self._ready

    def start(self, argv: Sequence[str]) -> Process | None:
        """Start a process in a session of its own, with the standard streams only.

        None if that must be done the ordinary way.
        """
        if list(argv[:2]) != [sys.executable, "-c"] or not self.ready():
            return None
        with contextlib.ExitStack() as opened:
            try:
                peer = opened.enter_context(self._request("start", *argv))
                pid = int(peer.recv(16))
                pidfd = os.pidfd_open(pid)
                opened.callback(os.close, pidfd)
                begun = start_time(pid) or 0
                peer.send(b"go")
            except (OSError, ValueError):
                self.close()
                return None
            opened.pop_all()
        peer.close()
        return Process(pid, begun, pidfd, self._status)

    def _status(self, pid: int) -> int | None:
        """The wait status of a process that has ended; None if nobody knows."""
        try:
            with self._request("wait", pid) as peer:
                return int(peer.recv(16))
        except (OSError, ValueError):
            return None

    def _request(self, *request: str | int) -> socket.socket:
        """Send it; returns where the answer comes. Raises OSError."""
        if self._channel is None:
            raise OSError("there is no fork server any more")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(ANSWER_S)
        with theirs:
            try:
                socket.send_fds(self._channel, [json.dumps(request).encode()], [theirs.fileno()],
                                socket.MSG_DONTWAIT)
            except OSError:
                ours.close()
                raise
        return ours

    def close(self) -> None:
        """End the server; what it started lives on."""
        if self._channel:
            self._channel.close()
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        self._channel, self._ready = None, False


def begin(preload: Callable[[], None]) -> ForkServer:
    """Fork a server, which calls `preload` to import what will be needed.

    Call it from the main thread, before others use locks. Neither the server nor what it forks
    returns from here.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    _freeze()
    pid = os.fork()
    if not pid:
        ours.close()
        _serve(theirs, preload)
    theirs.close()
    return ForkServer(pid, ours)


def _serve(channel: socket.socket, preload: Callable[[], None]) -> Never:
    """Fork what is asked for until the watchdog is gone."""
    os.setsid()
    for name in notify.VARIABLES:
        os.environ.pop(name, None)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # or numpy starts threads: no place to fork
    if not show_command_line(TITLE):
        sys.exit()
    with contextlib.suppress(Exception):  # whoever needs it will say what is wrong with it
        preload()
    _freeze()
    channel.send(b"r")
    while True:
        said, fds, _, _ = socket.recv_fds(channel, _LONGEST, 1)
        if not said:
            sys.exit()
        peer = socket.socket(fileno=fds[0])
        what, *given = json.loads(said)
        if what == "start" and not _fork():
            channel.close()
            _run(given, peer)
        elif what == "wait":
            with contextlib.suppress(OSError):
                peer.send(str(os.waitpid(given[0], os.WNOHANG)[1]).encode())
        peer.close()


def _freeze() -> None:
    """Before a fork: the collector writes to all it looks at, and what is written to is copied."""
    gc.collect()
    gc.freeze()


def _fork() -> int:
    """As os.fork; where there is no room for another process, the watchdog sees no answer."""
    try:
        return os.fork()
    except OSError:
        return -1


def _run(argv: Sequence[str], peer: socket.socket) -> Never:
    """In a new process: be `argv`, a `python -c`, once the watchdog knows of it."""
    os.setsid()
    try:
        peer.send(str(os.getpid()).encode())
        wanted = peer.recv(2)
    except OSError:
        wanted = b""
    if not wanted:
        os._exit(0)
    peer.close()
    os.closerange(3, max(map(int, os.listdir("/proc/self/fd"))) + 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    show_command_line(argv)
    sys.argv, sys.orig_argv = ["-c", *argv[3:]], list(argv)
    main = sys.modules["__main__"] = ModuleType("__main__")
    exec(argv[2], main.__dict__)
    sys.exit()


def show_command_line(argv: Sequence[str]) -> bool:
    """Let /proc/self/cmdline show `argv`; False where the kernel refuses.

    As prctl(2) has it, a map with the addresses that proc(5) stat gives, the command line's
    changed.
    """
    global _shown
    text = b"".join(os.fsencode(argument) + b"\0" for argument in argv)
    shown = ctypes.create_string_buffer(text, len(text))
    at = ctypes.addressof(shown)
    with open("/proc/self/stat") as file:
        stat = file.read().rpartition(")")[2].split()
    code, code_end, stack = map(int, stat[23:26])
    data, data_end, heap, _, _, environment, environment_end = map(int, stat[42:49])
    libc = ctypes.CDLL(None)
    libc.sbrk.restype = ctypes.c_void_p
    packed = _MM_MAP.pack(
        code, code_end, data, data_end, heap, libc.sbrk(0), stack, at, at + len(text),
        environment, environment_end, 0, 0, 2**32 - 1)  # neither auxv nor executable
    if libc.prctl(_PR_SET_MM, _PR_SET_MM_MAP, packed, ctypes.c_ulong(len(packed)), 0):
        return False
    _shown = shown
    return True
