"""Detectors for what a living process does wrong. All times are steady-clock seconds."""

from dataclasses import dataclass

from brainos_ros.robot_spec import Beat

SUSPICION = 1.6  # periods of silence
HALF = 0.5  # a beat that is due is allowed half a period of jitter
LATE_OUTPUT = 1.95  # periods without output: seen within two of the failure
STARVED_LIMIT_S = 3.0  # even a starved process is not excused longer
BUSY = 0.9  # somebody waits for a processor this share of the time: the machine is overloaded
BUSY_LIMIT_S = 1.0  # an overloaded machine excuses silence of this length …
BUSY_PERIODS = 8  # … and this many periods without output instead of two


@dataclass(frozen=True)
class Usage:
    """What the kernel says of a process, all its threads together."""

    ran_s: float  # CPU time had
    waited_s: float  # CPU time waited for, counted when the wait ends
    state: str  # T if stopped; else R if a thread wants to run, D if one waits for a disk; else S
    watcher_waited_s: float = 0.0  # CPU time that the watching process waited for


def starved(before: Usage, after: Usage, window_s: float) -> bool:
    """True if the process was silent because it was not given the machine.

    A loop that spins had the CPU; a stopped one did not ask for it; a starved one asked (run-queue
    wait in /proc/<pid>/task/*/schedstat) and got little. If the watcher itself was starved, what
    it did not hear proves nothing.
    """
    if at_work(before, after, window_s):
        return False
    if after.state == "D" and before.state == "D":
        return True
    ran = after.ran_s - before.ran_s
    unserved = after.state == "R" and before.state == "R" and ran == 0.0
    waited = after.waited_s - before.waited_s
    watcher_waited = after.watcher_waited_s - before.watcher_waited_s
    return unserved or waited > 0.4 * window_s or watcher_waited > 0.4 * window_s


def at_work(before: Usage, after: Usage, window_s: float) -> bool:
    """True if a silent process is stopped or spins, for which no other load is an excuse."""
    return after.state == "T" or after.ran_s - before.ran_s >= 0.25 * window_s


class Heart:
    """The heartbeat of one working loop."""

    def __init__(self, spec: Beat, now: float, grace_s: float | None = None) -> None:
        self._spec = spec
        self._allowed_until = now + (spec.grace_s if grace_s is None else grace_s)
        self._started = now
        self.last: float | None = None
        self._suspected: tuple[float, Usage | None] | None = None

    def beat(self, now: float) -> None:
        """One that came at this time, later than those before it."""
        self.last = now
        self._suspected = None
        self._allowed_until = now + self._spec.period_s * (self._spec.misses + HALF)

    def allow_until(self, time: float) -> None:
        """Excuse silence until then: a transition is running, or the watchdog itself was late."""
        self._allowed_until = max(self._allowed_until, time)

    def age(self, now: float) -> float | None:
        """Seconds since the last beat; None before the first."""
        return None if self.last is None else now - self.last

    @property
    def suspect(self) -> bool:
        return self._suspected is not None

    def suspicious(self, now: float) -> bool:
        """True once when silence begins to be odd; answer it with `suspected`."""
        return (
            self.last is not None
            and self._suspected is None
            and now >= self.last + SUSPICION * self._spec.period_s
        )

    def uneasy(self, now: float) -> bool:
        """True if it is suspicious or due."""
        return self.suspicious(now) or self.due(now)

    def suspected(self, now: float, usage: Usage | None) -> None:
        """Remember what the process had used when suspicion began."""
        self._suspected = (now, usage)

    def due(self, now: float) -> bool:
        """True if the silence has used up what is allowed."""
        return now >= self._allowed_until

    def verdict(self, now: float, usage: Usage | None, pressure: float = 0.0) -> str | None:
        """Called when due: the evidence if it failed, None if it was not watched or is starved.

        `pressure` is the share of time that somebody on this machine waits for a processor.
        """
        if self.last is None:
            return f"no heartbeat within {now - self._started:.1f} s of its start"
        silence = now - self.last
        since, before = self._suspected or (now, None)
        if before and now <= since:  # whoever judges was late, and has yet to look
            self._allowed_until = now + self._spec.period_s
            return None
        if before and usage:
            busy = pressure > BUSY and not at_work(before, usage, now - since)
            if (silence < STARVED_LIMIT_S and starved(before, usage, now - since)) or (
                    silence < BUSY_LIMIT_S and busy):
                self._suspected = (now, usage)
                self._allowed_until = now + self._spec.period_s
                return None
        missed = int(silence / self._spec.period_s)
        return f"no heartbeat for {silence * 1000:.0f} ms ({missed} missed){self._why(now, usage)}"

    def _why(self, now: float, usage: Usage | None) -> str:
        if usage and usage.state == "T":
            return ": its process is stopped"
        since, before = self._suspected or (now, None)
        if usage is None or before is None:
            return ""
        ran = usage.ran_s - before.ran_s
        if ran > 0.25 * (now - since):
            return f": its loop spins ({ran / (now - since):.0%} of a core)"
        return ": its loop hangs without using the processor"

    def deadline(self) -> float:
        """When it must be looked at again: to suspect it, once suspected to judge it."""
        if self.last is None or self.suspect:
            return self._allowed_until
        return min(self._allowed_until, self.last + SUSPICION * self._spec.period_s)


class Freshness:
    """One topic a node must keep publishing, each number in it finite."""

    def __init__(self, topic: str, period_s: float, now: float, grace_s: float = 2.0) -> None:
        self.topic = topic
        self.seen = False
        self._period = period_s
        self._last = now
        self._allowed_until = now + grace_s + 2 * period_s
        self._wrong = ""

    def message(self, now: float, wrong: str = "") -> None:
        """One message arrived; `wrong` names the field that is not a finite number."""
        if now < self._last:
            return  # of the predecessor
        self._last = now
        self._wrong = self._wrong or wrong
        self.seen = self.seen or not wrong
        self._allowed_until = now + LATE_OUTPUT * self._period

    def allow_until(self, time: float) -> None:
        self._allowed_until = max(self._allowed_until, time)

    def due(self, now: float) -> bool:
        """True if the silence has used up what is allowed."""
        return now >= self._allowed_until

    def verdict(self, now: float, pressure: float = 0.0) -> str | None:
        """One sentence of evidence if it failed; `pressure` as for `Heart.verdict`."""
        if self._wrong:
            return f"{self.topic}: {self._wrong}"
        busy = pressure > BUSY and now - self._last < BUSY_PERIODS * self._period
        if self.due(now) and not busy:
            silence = (now - self._last) * 1000
            allowed = LATE_OUTPUT * self._period * 1000
            return f"{self.topic}: nothing for {silence:.0f} ms, {allowed:.0f} allowed"
        return None

    def deadline(self) -> float:
        return self._allowed_until


class Lag:
    """How late the watchdog's own loop ran: its stalls must not look like everyone else's death."""

    def __init__(self, now: float, patience_s: float = 0.1) -> None:
        self._patience = patience_s
        self._expected = now
        self._worst: list[tuple[float, float]] = []

    def expect(self, time: float) -> None:
        """The loop will run again at this time."""
        self._expected = time

    def ran(self, now: float) -> bool:
        """The loop runs now; True if it was so late that silence of others proves nothing."""
        late = max(0.0, now - self._expected)
        self._worst = [(t, x) for t, x in self._worst if t > now - 1.0 and x > late]
        self._worst.append((now, late))
        return late > self._patience

    def worst_s(self, now: float) -> float:
        """The latest it ran in the last second."""
        return max((x for t, x in self._worst if t > now - 1.0), default=0.0)
