"""Types of options that several verbs have: refused by argparse, with what would be right."""

import re
from argparse import ArgumentTypeError

from brainos_ros.checked_yaml import NAME

LONGEST_S = 1e9
_NAMESPACE = re.compile(f"/?({NAME}(/{NAME})*/?)?")
_REMAP = re.compile("(rostopic://|rosservice://)?[~/\\w]+:=[~/\\w]+", re.ASCII)
_FOR_ONE = re.compile(f"(?!ros(topic|service)://)({NAME}):.*:=.*")
_PARAMETER = re.compile(f"([*/\\w]+:)?{NAME}(\\.\\w+)*:=.+", re.ASCII | re.DOTALL)
_LEVEL = re.compile("([^:=]+:=)?(debug|info|warn|error|fatal)", re.IGNORECASE)


def seconds(text: str) -> float:
    """A span of time."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 < value <= LONGEST_S:
        raise ArgumentTypeError(f"{text!r} is no span of time; give seconds above 0, e.g. 5")
    return value


def namespace(text: str) -> str:
    """A ROS namespace, or nothing."""
    return _matching(_NAMESPACE, text, "namespace; give e.g. r1 or fleet/r1")


def remap(text: str) -> str:
    """A ROS remap rule for all nodes."""
    if rule := _FOR_ONE.fullmatch(text):
        raise ArgumentTypeError(
            f"{text!r} is for the node {rule[2]} alone, so nobody else, not even who watches it, "
            "would find it there; give a rule for all, FROM:=TO, or change the robot file's topics")
    return _matching(_REMAP, text, "remap rule; give FROM:=TO, e.g. scan:=front/scan")


def parameter(text: str) -> str:
    """A ROS parameter with its value."""
    return _matching(_PARAMETER, text, "parameter; give NAME:=VALUE, e.g. seed:=5")


def log_level(text: str) -> str:
    """A ROS log level, of all or of one logger."""
    return _matching(_LEVEL, text, "log level; give debug, info, warn, error or fatal")


def _matching(pattern: re.Pattern[str], text: str, what: str) -> str:
    if not pattern.fullmatch(text):
        raise ArgumentTypeError(f"{text!r} is no {what}")
    return text
