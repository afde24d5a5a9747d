"""Before a stream can be opened: its lock, its key, and what to say where that fails."""

import fcntl
import os
from contextlib import suppress

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import disk, frames
from brainos_ros.ledger.layout import Layout
from brainos_ros.ledger.notes import SigningKey
from brainos_ros.ledger.recovery import HUMAN, freeze


def take_lock(layout: Layout) -> int:
    """Become the stream's only writer; returns the descriptor that holds the lock.

    The lock ends with the process, however it ends, and is never taken from another. Raises
    BrainError (UNAVAILABLE) where somebody has it, OSError.
    """
    fd = disk.open_file(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with suppress(OSError):  # a full disk: then nobody learns the pid
            disk.write_all(fd, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode(errors="replace").partition("\n")[0]
        disk.close(fd)
        raise BrainError(
            f"stream '{layout.path.name}' is being written by process {holder}; stop it, or ask it",
            ErrorCode.UNAVAILABLE,
        ) from None
    except BaseException:
        disk.close(fd)
        raise
    return fd


def load_key(layout: Layout) -> SigningKey:
    """The stream's key; a new one, kept durably, where nothing was ever written.

    Raises BrainError (LEDGER_REFUSED) where it is gone, Frozen where it is no key, OSError.
    """
    try:
        return SigningKey.parse(layout.key.read_bytes())
    except FileNotFoundError:
        if layout.checkpoints.exists() or layout.segments():
            raise BrainError(
                f"the private key of stream '{layout.path.name}' is gone, the log is not; put "
                f"'{layout.key}' back, from a backup taken with it. Without it the stream can be "
                "read and proved, not continued",
                ErrorCode.LEDGER_REFUSED,
            ) from None
    except frames.Damage as damage:
        raise freeze(layout, HUMAN, str(damage)) from None
    key = SigningKey(f"brainos/{layout.path.name}/{os.urandom(8).hex()}")
    disk.replace_file(layout.key, key.pack(), 0o600)
    return key


def unopened(layout: Layout, error: OSError) -> BrainError:
    return BrainError(
        f"stream '{layout.path.name}' cannot be opened: {error.strerror} "
        f"({error.filename or layout.path})",
        ErrorCode.LEDGER_REFUSED,
    )
