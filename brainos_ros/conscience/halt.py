"""The halt: a latch that only an operator opens, kept on disk as the absence of a file."""

import contextlib
import json
import os
import threading
from pathlib import Path

from brainos_ros.errors import BrainError, ErrorCode

NOT_ARMED = "not armed by an operator"


class Latch:
    """Halted unless `<directory>/armed` is there and names this robot.

    `halt` never waits for the disk; `forget_armed` then makes it last. A halt that comes while a
    reset is under way, in this process or another, always wins: from `stage` on it takes away the
    very file that `arm` would put in place.
    """

    def __init__(self, directory: Path, robot: str) -> None:
        self._path, self._staged_path = directory / "armed", directory / "armed.new"
        self._staged = False
        self._state = threading.Lock()
        self._disk = threading.Lock()
        self.generation = 0
        self._finished = self._kept = True
        self.cause = NOT_ARMED
        self.read(robot)

    def read(self, robot: str, anew: bool = False) -> None:
        """Takes the state from the disk, for the robot with this id; a halt so far stays.

        With `anew` a halt that reached the disk counts only if it is still there, as after a
        restart: a stand-by heard the halt, but not the reset.
        """
        generation, armed = self.generation, self._armed_on_disk(robot)
        with self._state:
            self._robot = robot
            if generation != self.generation:
                return
            if self.cause in ("", NOT_ARMED) or (anew and armed and self._kept):
                self.cause = "" if armed else NOT_ARMED

    @property
    def halted(self) -> bool:
        """True if nothing may move until an operator resets it."""
        return bool(self.cause)

    def look(self) -> str:
        """Why the robot is halted, or empty. Halts if another process took the file away: a
        stand-by may have heard a halt that the active did not."""
        if not self.cause:
            try:
                os.stat(self._path)
            except FileNotFoundError:
                self.halt(f"{self._path} was removed: halted elsewhere")
                self.forget_armed()
        return self.cause

    def halt(self, cause: str) -> None:
        """Latches at once, in memory; `forget_armed` finishes it."""
        with self._state:
            self.generation += 1
            self._finished = self._kept = False
            self.cause = cause or "halted"

    def forget_armed(self) -> str:
        """Removes the file, so that a restart finds the halt. What went wrong, or empty."""
        kept = False
        try:
            with self._disk, contextlib.suppress(FileNotFoundError):
                self._remove()
            kept = True
        except OSError as error:
            return f"halted, but {self._path} could not be removed: {error.strerror}"
        finally:
            with self._state:
                self.generation += 1
                self._finished, self._kept = True, kept
        return ""

    def stage(self, operator: str) -> None:
        """Prepares the file that `arm` puts in place. Raises BrainError LEDGER_REFUSED."""
        with self._disk:
            try:
                _write(self._staged_path, _armed(self._robot, operator))
            except OSError as error:
                raise self._unwritten(error) from error
            self._staged = True

    def arm(self, operator: str, generation: int) -> None:
        """Ends the halt durably, unless one came after `generation` was read or is not finished.

        Raises BrainError CONSCIENCE_HALTED if one did, LEDGER_REFUSED if the disk does not take
        the file; the robot stays halted then.
        """
        if not self._staged:
            self.stage(operator)
        with self._disk:
            self._staged = False
            try:
                os.replace(self._staged_path, self._path)
                _sync_directory(self._path.parent)
                with self._state:
                    if self.generation == generation and self._finished:
                        self.cause = ""
                        return
                self._remove()
            except FileNotFoundError:
                pass  # a halt took it away
            except OSError as error:
                with contextlib.suppress(OSError):
                    self._remove()
                raise self._unwritten(error) from error
        raise BrainError("halted again while it was reset", ErrorCode.CONSCIENCE_HALTED)

    def _remove(self) -> None:
        self._staged_path.unlink(missing_ok=True)
        self._path.unlink()
        _sync_directory(self._path.parent)

    def _unwritten(self, error: OSError) -> BrainError:
        return BrainError(
            f"{self._path} could not be written: {error.strerror}", ErrorCode.LEDGER_REFUSED)

    def _armed_on_disk(self, robot: str) -> bool:
        try:
            body = json.loads(self._path.read_text())
        except (OSError, ValueError):
            body = None
        return bool(robot) and isinstance(body, dict) and body.get("robot") == robot


def write_armed(directory: Path, robot: str, operator: str) -> None:
    """Writes the armed file, durable when this returns. Raises OSError."""
    write_durably(directory / "armed", _armed(robot, operator))


def _armed(robot: str, operator: str) -> bytes:
    return json.dumps({"robot": robot, "operator": operator}).encode()


def write_durably(path: Path, body: bytes, mode: int = 0o644) -> None:
    """Replaces a file as a whole, on disk when this returns. Raises OSError."""
    temporary = path.with_name(path.name + ".new")
    _write(temporary, body, mode)
    try:
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_directory(path.parent)


def _write(path: Path, body: bytes, mode: int = 0o644) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
