"""What a robot file says, once it was read and checked."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PARAMETER = {"speed_mps": "person_speed_mps"}  # of `people`, where it is not the field's name
STRATEGIES = ("one_for_one", "rest_for_one", "one_for_all")


@dataclass(frozen=True)
class Restart:
    """How a node is brought back, in the sense of Erlang/OTP supervisors."""

    strategy: str = "one_for_one"
    max_restarts: int = 5  # more than this within window_s: given up on
    window_s: float = 60.0
    backoff_s: float = 0.25  # before the second restart; doubled each time
    backoff_max_s: float = 8.0
    stable_s: float = 30.0  # active this long: the backoff starts again from nothing


@dataclass(frozen=True)
class Beat:
    """When a silent working loop is a failed one."""

    period_s: float = 0.1
    misses: int = 3
    grace_s: float = 10.0  # from process start to the first heartbeat


@dataclass(frozen=True)
class Output:
    """A topic a node must keep publishing while active, every number in it finite."""

    topic: str
    type: str  # as in `ros2 topic list -t`, e.g. geometry_msgs/msg/Twist
    period_s: float  # longest time between two messages in health; twice that is a failure


@dataclass(frozen=True)
class NodeSpec:
    """One supervised node."""

    role: str
    package: str = "brainos_ros"
    executable: str = ""
    after: tuple[str, ...] = ()
    standby: bool = False
    essential: bool = False
    configure_s: float = 20.0  # deadline of each lifecycle transition
    restart: Restart = Restart()
    heartbeat: Beat = Beat()
    outputs: tuple[Output, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Driver:
    """The executable that is the robot, where it is not a real base: a simulator, a log player."""

    executable: str
    package: str = "brainos_ros"
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Network:
    """How to tell that the robot is cut off from what is outside it."""

    reach: tuple[str, ...] = ()  # host:port of places that accept TCP connections
    period_s: float = 2.0
    misses: int = 2


@dataclass(frozen=True)
class Robot:
    """A checked robot file."""

    name: str
    path: Path
    base: Mapping[str, float]
    people: Mapping[str, float]
    topics: Mapping[str, str]
    nodes: Mapping[str, NodeSpec]
    network: Network = Network()
    hardware: tuple[str, ...] = ("cpu",)
    composition: bool = False
    driver: Driver | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def shared_parameters(self) -> dict[str, Any]:
        """What every node gets: base, people, topics and hardware as flat ROS parameters."""
        flat: dict[str, Any] = dict(self.base)
        for key, value in self.people.items():
            flat[PARAMETER.get(key, key)] = value
        flat.update({f"{key}_topic": value for key, value in self.topics.items()})
        return {**flat, "hardware": list(self.hardware), **self.parameters}

    def home(self) -> Path:
        """`$BRAINOS_HOME`, else `~/.ros/brainos/<robot>`."""
        chosen = os.environ.get("BRAINOS_HOME")
        return Path(chosen) if chosen else Path.home() / ".ros/brainos" / self.name
