"""Every system call by which the ledger changes a disk, in one place.

The rest of the room calls these by this module (`disk.pwrite(...)`), so that a test can make
each of them fail in turn.
"""

import errno
import os
import shutil
from pathlib import Path

#: A write that failed with one of these changed nothing and may succeed later.
TRANSIENT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

#: What a file system says that knows no second name for a file, or no more of them.
_NO_LINK = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)

CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC

open_file = os.open
close = os.close
pwrite = os.pwrite
fdatasync = os.fdatasync
fsync = os.fsync
ftruncate = os.ftruncate
allocate = os.posix_fallocate
replace = os.replace
unlink = os.unlink
mkdir = os.mkdir
link = os.link
remove_tree = shutil.rmtree


def write_all(fd: int, data: bytes | bytearray, offset: int) -> None:
    """Write all of `data` at `offset`, going on after a short write. Raises OSError."""
    written = pwrite(fd, data, offset)
    while written < len(data):
        written += pwrite(fd, data[written:], offset + written)


def sync_directory(path: Path) -> None:
    """Make the creations and renames in `path` durable. Raises OSError."""
    fd = open_file(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fsync(fd)
    finally:
        close(fd)


def make_directory(path: Path) -> None:
    """Create `path` and its missing parents, each durably; nothing if it is there."""
    if path.is_dir():
        return
    make_directory(path.parent)
    try:
        mkdir(path)
    except FileExistsError:
        return
    sync_directory(path.parent)


def replace_file(path: Path, data: bytes, mode: int = 0o644, durable: bool = True) -> None:
    """Put `data` at `path` so that a crash leaves the old file or the new one. Raises OSError.

    What is not `durable` outlives the process, and perhaps not a power cut.
    """
    fresh = path.with_name(path.name + ".new")
    fd = open_file(fresh, CREATE, mode)
    try:
        write_all(fd, data, 0)
        if durable:
            fsync(fd)
    finally:
        close(fd)
    replace(fresh, path)
    if durable:
        sync_directory(path.parent)


def remove_file(path: Path) -> None:
    """Remove `path` durably; nothing if it is not there. Raises OSError."""
    try:
        unlink(path)
    except FileNotFoundError:
        return
    sync_directory(path.parent)


def link_file(source: Path, target: Path) -> None:
    """Give the file `source` the name `target` too; where that cannot be, copy it. Raises OSError.

    The caller syncs the directory.
    """
    try:
        link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        replace_file(target, source.read_bytes(), source.stat().st_mode & 0o777)
