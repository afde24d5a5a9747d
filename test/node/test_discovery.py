"""How the processes of the brain find each other and talk."""

import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.utilities import get_rmw_implementation_identifier

from brainos_ros.ros import discovery

RANGE, STATIC = "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_STATIC_PEERS"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    made = {"AMENT_PREFIX_PATH": ""}
    monkeypatch.setattr(discovery.os, "environ", made)
    return made


@pytest.mark.parametrize(
    ("given", "profile", "becomes"),
    [
        ({RANGE: "LOCALHOST"}, "fastdds_localhost.xml", "SYSTEM_DEFAULT"),
        ({"ROS_LOCALHOST_ONLY": "1"}, "fastdds_localhost.xml", "SYSTEM_DEFAULT"),
        ({RANGE: "LOCALHOST", STATIC: "10.0.0.2"}, "fastdds.xml", "LOCALHOST"),
        ({RANGE: "LOCALHOST", "RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"},
         "fastdds_localhost.xml", "LOCALHOST"),
        ({RANGE: "SUBNET"}, "fastdds.xml", "SUBNET"),
        ({}, "fastdds.xml", None),
    ],
)  # fmt: skip
def test_the_profile_follows_the_range(
    environment: dict[str, str], given: dict[str, str], profile: str, becomes: str | None
) -> None:
    environment.update(given)
    discovery.prepare()
    discovery.prepare()
    chosen = {environment[name] for name in discovery.PROFILE_VARIABLES}
    assert {Path(path).name for path in chosen} == {profile}
    assert all(Path(path).is_file() for path in chosen)
    assert environment.get(RANGE) == becomes
    assert "ROS_LOCALHOST_ONLY" not in environment


def test_a_profile_of_the_user_is_left_alone(environment: dict[str, str]) -> None:
    environment.update({discovery.PROFILE_VARIABLES[0]: "/mine.xml", RANGE: "LOCALHOST"})
    before = dict(environment)
    discovery.prepare()
    assert environment == before


@pytest.mark.parametrize(("limit", "said"), [("212992", "208 KiB"), ("1048576", "")])
def test_small_receive_buffers_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, said: str
) -> None:
    file = tmp_path / "rmem_max"
    file.write_text(f"{limit}\n")
    monkeypatch.setattr(discovery, "_LIMIT", file)
    advice = discovery.advice()
    assert said in advice
    assert bool(said) == bool(advice)


@pytest.mark.parametrize("profile", ["fastdds.xml", "fastdds_localhost.xml"])
def test_both_profiles_ask_for_the_buffer_that_is_spoken_of(profile: str) -> None:
    text = (Path(discovery.__file__).parents[2] / "config" / profile).read_text()
    assert f"<receiveBufferSize>{discovery.RECEIVE_BUFFER}<" in text


def test_no_shared_memory_that_a_starting_process_could_block(graph: Any) -> None:
    if "fastrtps" not in get_rmw_implementation_identifier():
        pytest.skip("another middleware than Fast DDS")
    threads = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").iterdir()]
    assert any(name.startswith("dds.udp") for name in threads)
    assert not any(name.startswith("dds.shm") for name in threads), os.environ.get(RANGE)
