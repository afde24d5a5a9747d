"""Processes: start one in a session of its own, adopt one, see it end, read what it used.

Ends are seen through pidfds, which the kernel makes readable the moment a process has ended and
which never point at a later process of the same number (Linux, pidfd_open(2)).
"""

import contextlib
import ctypes
import glob
import json
import os
import select
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from brainos_ros.watchdog.detect import Usage

PARAMETERS = "watchdog/parameters.yaml"
LITTLE = 64 << 20  # a node that fails with fewer bytes free may have failed for that
ROOM = 16 << 20  # a node can begin its ledger and its stores with so many
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LIBC = ctypes.CDLL(None)  # loaded here: between fork and exec is no time for it
_PR_SET_PDEATHSIG = 1  # prctl(2)


def _status(pid: int) -> int | None:
    """The wait status of an ended process; None if it was not started by this one."""
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return None


@dataclass
class Process:
    """A living process, ours or adopted. `start_time` is field 22 of proc(5) stat: with the pid it
    names one process until the machine is restarted. `status` asks its parent how it ended."""

    pid: int
    start_time: int
    pidfd: int
    status: Callable[[int], int | None] = field(default=_status, compare=False)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def end(self, patience_s: float) -> None:
        """SIGTERM, SIGKILL after `patience_s`; returns when it has ended."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            self.signal(number)
            if select.select([self.pidfd], [], [], patience_s)[0]:
                break
        os.close(self.pidfd)

    def ended(self) -> str:
        """How it ended, in words; call it once, after the pidfd became readable."""
        os.close(self.pidfd)
        status = self.status(self.pid)
        if status is None:
            return "its process ended"
        if os.WIFSIGNALED(status):
            return f"its process was killed by {signal_name(os.WTERMSIG(status))}"
        return f"its process exited with code {os.WEXITSTATUS(status)}"

    def usage(self) -> Usage | None:
        """What it used so far; None if it is gone."""
        try:
            ran, waited, states = _threads(f"/proc/{self.pid}")
        except OSError:
            return None
        state = next((s for s in "TRD" if s in states), "S")
        return Usage(ran, waited, state, _threads("/proc/self")[1])

    def load(self) -> tuple[float, float]:
        """CPU time had since its start [s] and resident memory [MB]; zeros if it is gone."""
        try:
            stat = _stat(self.pid)
        except OSError:
            return 0.0, 0.0
        return (int(stat[11]) + int(stat[12])) / _TICK, int(stat[21]) * _PAGE / 1e6


def end_with_parent(number: signal.Signals) -> None:
    """Let the kernel send this process a signal when its parent ends (prctl(2)).

    Processes that it forks are not concerned.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, number)


def signal_name(number: int) -> str:
    """As in signal(7); most real-time signals have only their number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def start(argv: Sequence[str], environment: Mapping[str, str]) -> Process:
    """Start a process in a session of its own, with the standard streams of this one only.

    DDS opens its sockets to be inherited; a node that kept the watchdog's would hold the ports of a
    watchdog that died. Raises OSError if it cannot be started, or not be watched.
    """
    inherited = [int(fd) for fd in os.listdir("/proc/self/fd")]
    pid = os.posix_spawnp(
        argv[0], list(argv), dict(environment), setsid=True, setsigmask=[],
        file_actions=[(os.POSIX_SPAWN_CLOSE, fd) for fd in inherited if fd > 2],
        setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGHUP],
    )
    try:
        return Process(pid, start_time(pid) or 0, os.pidfd_open(pid))
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def adopt(pid: int, expected_start: int | None = None) -> Process | None:
    """Take over a living process; None if it is gone, a zombie, or another one of that number."""
    try:
        pidfd = os.pidfd_open(pid)
    except (OSError, OverflowError, ValueError):
        return None
    begun = start_time(pid)
    if begun is None or (expected_start is not None and begun != expected_start):
        os.close(pidfd)
        return None
    return Process(pid, begun, pidfd)


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if it does not live."""
    try:
        stat = _stat(pid)
    except OSError:
        return None
    return None if stat[0] in "ZX" else int(stat[19])


class Pressure:
    """How short of processors the machine is (/proc/pressure/cpu, `some`)."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque()
        try:
            self._file = os.open("/proc/pressure/cpu", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = -1  # this kernel does not count it

    def sample(self, now: float) -> None:
        try:
            some = os.pread(self._file, 200, 0).split(b"\n")[0]
            self._samples.append((now, int(some.rpartition(b"total=")[2]) / 1e6))
        except (OSError, ValueError):
            return
        while self._samples[0][0] < now - 0.5:
            self._samples.popleft()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def share(self) -> float:
        """Of the last half second, the share in which somebody waited; 0 if unknown."""
        if len(self._samples) < 2:
            return 0.0
        (began, before), (now, after) = self._samples[0], self._samples[-1]
        return (after - before) / max(now - began, 1e-3)


class Room:
    """Tells when a disk that was nearly full has room again."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._least = self._free()

    def returned(self, well: bool) -> bool:
        """True once each time ROOM more are free than at the least since all was `well`."""
        free = self._free()
        self._least = free if well else min(self._least, free)
        if self._least >= LITTLE or free < self._least + ROOM:
            return False
        self._least = free
        return True

    def _free(self) -> int:
        try:
            found = os.statvfs(self._place)
        except OSError:
            return LITTLE  # nothing is known, so nothing follows from it
        return found.f_bavail * found.f_frsize if found.f_favail or not found.f_files else 0


def boot_id() -> str:
    """Changes with each start of the machine (random(4))."""
    return _read("/proc/sys/kernel/random/boot_id").strip()


@dataclass
class Found:
    """What an earlier watchdog left: living processes by name, role -> node that holds it, and the
    roles that were given up and that were set aside."""

    living: dict[str, Process] = field(default_factory=dict)
    active: Mapping[str, str] = field(default_factory=dict)
    given_up: Sequence[str] = ()
    aside: Sequence[str] = ()


class PidFile:
    """The living processes by name, on disk, so that the next watchdog can adopt them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, left: Found) -> None:
        """Replace the file. Raises OSError."""
        body = {
            "boot": boot_id(),
            "processes": {name: [p.pid, p.start_time] for name, p in left.living.items()},
            "active": dict(left.active),
            "given_up": list(left.given_up),
            "aside": list(left.aside),
        }
        draft = self._path.with_suffix(".new")
        draft.write_text(json.dumps(body))
        draft.replace(self._path)

    def read(self) -> Found:
        """What was written, with what of it still lives, adopted; nothing if it is unusable."""
        try:
            body = json.loads(self._path.read_text())
            if body["boot"] != boot_id():
                return Found()
            named = [(name, int(pid), int(begun))
                     for name, (pid, begun) in body["processes"].items()]
            left = Found({}, {str(role): str(node) for role, node in body["active"].items()},
                         [str(name) for name in body["given_up"]],
                         [str(role) for role in body["aside"]])
        except (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError,
                ValueError):
            return Found()
        for name, pid, begun in named:
            process = adopt(pid, begun)
            if process:
                left.living[name] = process
        return left


def running(argv: Sequence[str], marks: Sequence[str], name: str, namespace: str, domain: str
            ) -> Iterator[int]:
    """Pids of processes that run what `argv` would start as node `name`.

    However they were started: by a program or Python script that ends with one of `marks`, in this
    namespace and ROS domain, with the parameters of this brain. None if no descriptor is free.
    """
    own_name = os.path.basename(marks[-1])
    ours = argv[argv.index("--params-file") + 1] if "--params-file" in argv else ""
    for path in glob.glob("/proc/[0-9]*"):
        pid = int(os.path.basename(path))
        if pid == os.getpid():
            continue
        try:
            arguments = _read(f"{path}/cmdline").split("\0")
            python = "python" in os.path.basename(arguments[0])
            program = arguments[1:3] if python else arguments[:1]
            if not any(argument.endswith(tuple(marks)) for argument in program):
                continue
            variables = dict(
                line.split("=", 1)
                for line in _read(f"{path}/environ").split("\0") if "=" in line)
        except OSError:
            continue
        remaps = dict(a.split(":=", 1) for a in arguments if a.startswith("__") and ":=" in a)
        at = remaps.get("__ns", variables.get("ROS_NAMESPACE", "/")).strip("/")
        here = at == namespace.strip("/") and variables.get("ROS_DOMAIN_ID", "0") == domain
        brain = {a for a in arguments if a.endswith(PARAMETERS)}
        if here and remaps.get("__node", own_name) == name and brain == {ours}:
            yield pid


def _read(path: str) -> str:
    with open(path, errors="replace") as file:
        return file.read()


def _threads(process: str) -> tuple[float, float, set[str]]:
    """CPU time had and waited for [s] and the states of all threads; raises OSError if gone."""
    ran = waited = 0
    states = set()
    for task in os.scandir(f"{process}/task"):
        with contextlib.suppress(OSError):
            had, waiting, _ = _read(f"{task.path}/schedstat").split()
            ran, waited = ran + int(had), waited + int(waiting)
            states.add(_read(f"{task.path}/stat").rpartition(")")[2].split()[0].upper())
    return ran / 1e9, waited / 1e9, states


def _stat(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat from field 3 (state) on; raises OSError if it is gone."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
