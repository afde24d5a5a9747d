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
from typing import NoReturn

from brainos_ros.watchdog import notify
from brainos_ros.watchdog.processes import Process, end_with_parent, start_time

ANSWER_S = 0.1  # a fork takes some ms; who waits holds the watchdog's lock
TITLE = (sys.executable, "-c", "'the fork server of a BrainOS watchdog'")
_LONGEST = 65536  # bytes of a request
_PR_SET_MM, _PR_SET_MM_MAP = 35, 14
_MM_MAP = struct.Struct("=12Q2I")  # struct prctl_mm_map
_THREADS = "OPENBLAS_NUM_THREADS"  # numpy starts threads when it is imported: no place to fork


class ForkServer:
    """The watchdog's end of it. Not thread-safe."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self._pid = pid
        self._channel: socket.socket | None = channel
        self._ready = False
        self.lost = ""
        """Why there is none any more; empty if there is, or nobody wanted it."""

    def ready(self, timeout_s: float = 0.0) -> bool:
        """Whether it has imported everything, waiting for that for `timeout_s`."""
        waiting = self._channel if not self._ready else None
        if waiting and select.select([waiting], [], [], timeout_s)[0]:
            self._ready = bool(waiting.recv(1))
            if not self._ready:
                self._lose("it ended before it had imported everything")
        return self._ready

    def start(self, argv: Sequence[str]) -> Process | None:
        """Start a process in a session of its own, with the standard streams only.

        None if that must be done the ordinary way.
        """
        if list(argv[:2]) != [sys.executable, "-c"] or not self.ready():
            return None
        peer, pid = self._ask("start", *argv)
        if peer is None or pid is None:
            return None
        with peer, contextlib.suppress(OSError):
            process = Process(pid, start_time(pid) or 0, os.pidfd_open(pid), self._status)
            peer.send(b"go")
            return process
        return None

    def _status(self, pid: int) -> int | None:
        """The wait status of a process that has ended; None if nobody knows."""
        peer, status = self._ask("wait", pid)
        if peer:
            peer.close()
        return status

    def _ask(self, *request: str | int) -> tuple[socket.socket | None, int | None]:
        """Where the answer came, and the number that came; a server that is silent is lost."""
        if self._channel is None:
            return None, None
        try:
            peer, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:  # no descriptor is free, which is not the server's fault
            return None, None
        peer.settimeout(ANSWER_S)
        try:
            with theirs:
                socket.send_fds(self._channel, [json.dumps(request).encode()], [theirs.fileno()],
                                socket.MSG_DONTWAIT)
            said = peer.recv(16)
        except OSError as error:
            peer.close()
            self._lose(f"it does not answer: {error}")
            return None, None
        return peer, int(said) if said else None

    def _lose(self, why: str) -> None:
        self.close()
        self.lost = why

    def close(self) -> None:
        """End the server; what it started lives on."""
        if self._channel:
            self._channel.close()
            self._channel, self._ready = None, False
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, os.WNOHANG)  # who waited might wait for ever: it may be traced


def begin(preload: Callable[[], None]) -> ForkServer:
    """Fork a server, which calls `preload` to import what will be needed.

    Call it from the main thread, before others use locks. Neither the server nor what it forks
    returns from here.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored nobody learns of an end
    _prepare()
    watchdog = os.getpid()
    pid = os.fork()
    if not pid:
        ours.close()
        _serve(theirs, preload, watchdog)
    theirs.close()
    return ForkServer(pid, ours)


def _prepare() -> None:
    """Before a fork: what is in a buffer would be written twice, and what the collector writes to,
    which is all it looks at, would be copied."""
    sys.stdout.flush()
    sys.stderr.flush()
    gc.collect()
    gc.freeze()


def _serve(channel: socket.socket, preload: Callable[[], None], watchdog: int) -> NoReturn:
    """Fork what is asked for until the watchdog is gone."""
    end_with_parent(signal.SIGKILL)
    os.setsid()
    for name in notify.VARIABLES:
        os.environ.pop(name, None)
    if os.getppid() != watchdog or not show_command_line(TITLE):
        os._exit(0)
    threads = os.environ.get(_THREADS)
    os.environ[_THREADS] = "1"
    with contextlib.suppress(Exception):  # whoever needs it will say what is wrong with it
        preload()
    if threads is None:
        del os.environ[_THREADS]
    else:
        os.environ[_THREADS] = threads
    _prepare()
    argv, peer = _answer(channel)
    channel.close()
    _run(argv, peer)


def _answer(channel: socket.socket) -> tuple[list[str], socket.socket]:
    """Fork what is asked for until the watchdog is gone. It returns in the forks, with what each is
    to be and where that is agreed upon."""
    ended: dict[int, int] = {}
    try:
        channel.send(b"r")
        while True:
            said, fds, _, _ = socket.recv_fds(channel, _LONGEST, 1)
            if not said:
                break
            _reap(ended)
            if not fds:
                continue  # no descriptor was free for it
            peer = socket.socket(fileno=fds[0])
            what, *given = json.loads(said)
            if what == "start":
                if not _fork():
                    return given, peer
            elif given[0] in ended:
                peer.send(str(ended.pop(given[0])).encode())
            peer.close()
    except (OSError, ValueError):
        pass
    os._exit(0)


def _reap(ended: dict[int, int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = found[1]


def _fork() -> int:
    """As os.fork; where there is no room for another process the watchdog gets no number."""
    try:
        return os.fork()
    except OSError:
        return -1


def _run(argv: Sequence[str], peer: socket.socket) -> NoReturn:
    """In a new process: be `argv`, a `python -c`, once the watchdog knows of it."""
    try:
        os.setsid()
        kept = peer.fileno()
        os.closerange(3, kept)
        os.closerange(kept + 1, max(map(int, os.listdir("/proc/self/fd"))) + 1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if not show_command_line(argv):
            os._exit(0)
        peer.send(str(os.getpid()).encode())
        if not peer.recv(2):
            os._exit(0)
    except OSError:
        os._exit(0)
    peer.close()
    sys.argv, sys.orig_argv, sys.path[0] = ["-c", *argv[3:]], list(argv), ""
    main = sys.modules["__main__"] = ModuleType("__main__")
    exec(argv[2], main.__dict__)
    sys.exit()


def show_command_line(argv: Sequence[str]) -> bool:
    """Let /proc/self/cmdline show `argv`; False where the kernel refuses.

    As prctl(2) has it, a map with the addresses that proc(5) stat gives, the command line's
    changed.
    """
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
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(shown))  # read from there as long as it lives
    return True
