"""Which rules are in force: the authorised ones, whatever a file on the disk says by now."""

from pathlib import Path

from brainos_ros.conscience.halt import write_durably
from brainos_ros.conscience.rules import RuleSet
from brainos_ros.conscience.rules_file import load
from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.shipped import shipped


def rules_file(given: str) -> Path:
    """The rules file a parameter names; empty for the shipped one. Raises BrainError NOT_FOUND."""
    return Path(given) if given else shipped("rules/mobile_base.yaml")


def in_force(home: Path, file: Path) -> tuple[RuleSet, str]:
    """The authorised rules and a remark, empty if the file still is what was authorised.

    The first file a robot ever loads is taken as authorised. Raises BrainError if the file, or
    what was authorised, does not load: a broken file stops the robot rather than hide.
    """
    given = load(file)
    kept = _kept(home)
    if not kept.exists():
        keep(home, given)
        return given, ""
    authorised = load(kept)
    if authorised.version == given.version:
        return authorised, ""
    return authorised, (
        f"{file} is not what was authorised; rules {authorised.version[:12]} stay in force until "
        "two engineers sign the change (`brainos conscience token rules`)")


def keep(home: Path, rules: RuleSet) -> None:
    """Makes these the authorised rules, durably. Raises BrainError LEDGER_REFUSED."""
    try:
        _kept(home).parent.mkdir(parents=True, exist_ok=True)
        write_durably(_kept(home), rules.source)
    except OSError as error:
        raise BrainError(f"{_kept(home)} could not be written: {error.strerror}",
                         ErrorCode.LEDGER_REFUSED) from error


def _kept(home: Path) -> Path:
    return home / "conscience" / "rules.yaml"
