"""A disk without a byte left under a driving robot: denied, halted, and allowed again."""

import time
from dataclasses import dataclass
from pathlib import Path

from recovery_trials import Observer, wait_until
from small_disk import fill

PADS = (12_000, 1000, 1)  # to fill what the ledger holds in reserve [characters]


@dataclass
class Filled:
    """Milliseconds: from the first refused record to command zero (the gate's next record), from
    the halt to its answer, and from space to the end of the ledger's complaint."""

    denied_ms: float
    halted_ms: float
    allowed_ms: float


class Disk:
    """The small disk that a brain lives on; notes every evaluation that was answered."""

    def __init__(self, observer: Observer, place: Path, home: Path, keys: Path) -> None:
        self._observer, self._place, self._home, self._keys = observer, place, home, keys
        self._ids: set[str] = set()

    @property
    def accepted(self) -> int:
        return len(self._ids)

    def fill_and_free(self) -> Filled:
        """Fill it while the robot moves, halt, free it, reset."""
        from brainos_msgs import srv

        from brainos_ros.conscience.credentials import reset_token

        observer = self._observer
        with observer.asking():
            began = time.monotonic()
            wait_until(lambda: observer.moves(began))
            ballast = fill(self._place)
            for pad in PADS:
                while self._evaluated(pad):
                    pass
            refused = time.monotonic()
            zero = wait_until(lambda: next(
                (at for at, size in list(observer.commands) if at > refused and size == 0.0), None))
            wait_until(self._held)
            asked = time.monotonic()
            halt = srv.Halt.Request(reason="the disk is full", requester="bench")
            assert observer.call(srv.Halt, "conscience/halt", halt).success
            halted = time.monotonic()
        ballast.unlink()
        freed = time.monotonic()
        wait_until(lambda: not self._held())
        allowed = time.monotonic()
        reset = srv.Reset.Request(operator_name="bench")

        def let_go() -> bool:
            reset.token = reset_token(self._home, "bench", self._keys)
            return bool(observer.call(srv.Reset, "conscience/reset", reset).success)

        wait_until(let_go)
        return Filled((zero - refused) * 1e3, (halted - asked) * 1e3,
                      (allowed - freed) * 1e3)

    def _held(self) -> bool:
        return any("ledger" in cause for cause in self._observer.states[-1][1].causes)

    def _evaluated(self, pad: int) -> bool:
        from brainos_msgs import srv

        from brainos_ros.ros.conversions import dict_to_attributes

        context = dict_to_attributes({f"note_{n}": "x" * (pad // 4 + 1) for n in range(4)})
        verdict = self._observer.call(srv.Evaluate, "conscience/evaluate", srv.Evaluate.Request(
            action="aisle_1", context=context)).evaluation
        if verdict.approved:
            self._ids.add(verdict.evaluation_id)
        return bool(verdict.approved)

    def lost(self) -> int:
        """How many of the verdicts that were answered are not on record."""
        from brainos_ros.conscience import stream

        kept = {body.get("evaluation_id") for _, _, body in stream.events(self._home)}
        return len(self._ids - kept)
