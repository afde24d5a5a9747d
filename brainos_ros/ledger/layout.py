"""Where the files of a stream lie."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from brainos_ros.errors import BrainError, ErrorCode

RAW, COMPRESSED, PRUNED = ".seg", ".seg.zst", ".pruned"
MAX_NAME = 128  # bytes; an export's member names must fit into a tar header
_FORMS = (RAW, COMPRESSED, PRUNED)


class SegmentFile(NamedTuple):
    """One file of the log: the number of its first record, and where and how it is kept."""

    first: int
    path: Path
    suffix: str

    @classmethod
    def at(cls, path: Path) -> "SegmentFile | None":
        """The segment in the file `path`; None where its name is not that of one."""
        digits = path.name.partition(".")[0]
        suffix = path.name.removeprefix(digits)
        if suffix in _FORMS and len(digits) == 16 and digits.isascii() and digits.isdigit():
            return cls(int(digits), path, suffix)
        return None


class Layout:
    """The names of the files under a stream's directory.

    `lock`, `key`, `checkpoints` and `log/` are the stream; `keys.json`, `tiles/`, `offsets`,
    `paths.sqlite` and `manifest.json` are derived from it. `frozen`, `erasing` and `key.next`
    exist only while something is unfinished. `torn/` keeps what recovery cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = path / "lock"
        self.key = path / "key"
        self.next_key = path / "key.next"
        self.keys = path / "keys.json"
        self.checkpoints = path / "checkpoints"
        self.log = path / "log"
        self.torn = path / "torn"
        self.tiles = path / "tiles"
        self.offsets = path / "offsets"
        self.paths = path / "paths.sqlite"
        self.manifest = path / "manifest.json"
        self.frozen = path / "frozen"
        self.erasing = path / "erasing"

    def segment(self, first: int, suffix: str = RAW) -> Path:
        """The file of the segment that begins with record `first`."""
        return self.log / f"{first:016d}{suffix}"

    def segments(self) -> list[SegmentFile]:
        """The log's files in order; of a segment that is there twice the form that counts."""
        return [forms[0] for _, forms in sorted(self._forms().items())]

    def spares(self) -> list[SegmentFile]:
        """Files whose segment is there in a form that counts before theirs."""
        return [spare for _, forms in sorted(self._forms().items()) for spare in forms[1:]]

    def _forms(self) -> dict[int, list[SegmentFile]]:
        """Every file of the log, by the first record of its segment; the one that counts first."""
        found: dict[int, list[SegmentFile]] = {}
        for path in self.log.glob("*"):
            segment = SegmentFile.at(path)
            if segment:
                found.setdefault(segment.first, []).append(segment)
        for forms in found.values():
            forms.sort(key=lambda segment: _FORMS.index(segment.suffix))
        return found

    def freeze_reason(self) -> dict[str, Any] | None:
        """What the `frozen` file says: `state`, `reason`, `remedy`; None where there is none."""
        try:
            said = json.loads(self.frozen.read_bytes())
            return {"remedy": "", **said, "state": str(said["state"]), "reason": said["reason"]}
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError):
            return {"state": "FROZEN_HUMAN", "reason": "the file 'frozen' is unreadable"}

    def log_bytes(self) -> int:
        """Size of the log on the disk; a file that goes meanwhile counts for nothing [bytes]."""
        total = 0
        for segment in self.segments():
            with suppress(FileNotFoundError):
                total += segment.path.stat().st_size
        return total


def check_name(name: str) -> None:
    """Refuse what cannot be a stream's name, nor stand in the name of its key.

    Raises BrainError (INVALID_ARGUMENT).
    """
    wrong = name in ("", ".", "..") or not name.isprintable() or set(name) & set(" +/\\")
    if wrong or len(name.encode()) > MAX_NAME:
        raise BrainError(
            f"name '{name}' is not allowed; give one path component of at most {MAX_NAME} bytes "
            "without white space, '+' and back slashes, such as 'memory'"
        )


def find(path: Path) -> Layout:
    """The layout of an existing stream. Raises BrainError (NOT_FOUND)."""
    layout = Layout(path)
    if not layout.log.is_dir():
        raise BrainError(
            f"'{path}' is not a ledger stream: it has no 'log' directory", ErrorCode.NOT_FOUND
        )
    return layout


def streams(root: Path) -> list[Path]:
    """The streams under `root`, by name."""
    return sorted(path.parent for path in root.glob("*/log"))
