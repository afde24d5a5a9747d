"""Which brain's state a verb is about."""

import argparse
import os
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every verb that reads or writes a brain's state."""
    parser.add_argument("--robot", default="sim", help="name of the robot (default sim)")
    parser.add_argument("--home", type=Path, help="default $BRAINOS_HOME, ~/.ros/brainos/<robot>")


def home_of(args: argparse.Namespace) -> Path:
    """The state directory the arguments mean."""
    given = args.home or os.environ.get("BRAINOS_HOME")
    return Path(given or Path.home() / ".ros" / "brainos" / args.robot).expanduser()
