"""What `make lint` checks: ruff everywhere, mypy --strict where no ROS is imported."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROS_DOORS = ("ros", "robots", "cli")


def plain_modules() -> list[str]:
    """Every module outside the doors to ROS."""
    return [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "brainos_ros").rglob("*.py"))
        if path.name != "node.py" and path.relative_to(ROOT).parts[1] not in ROS_DOORS
    ]


def main() -> int:
    checks = (
        ["ruff", "check", "."],
        ["mypy", "--strict", *plain_modules()],
    )
    return max(subprocess.call([sys.executable, "-m", *check], cwd=ROOT) for check in checks)


if __name__ == "__main__":
    raise SystemExit(main())
