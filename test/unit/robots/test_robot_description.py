"""The URDF of the base and the rviz configuration are valid and fit what is published."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from brainos_ros.robots.physics import LIDAR_HEIGHT_M, WHEEL_RADIUS_M, Base

CONFIG = Path(__file__).parents[3] / "config"
ROBOT = ElementTree.parse(CONFIG / "urdf" / "sim_base.urdf").getroot()


def test_the_urdf_is_one_tree_from_base_link():
    links = {link.get("name") for link in ROBOT.iter("link")}
    parents = {}
    for joint in ROBOT.iter("joint"):
        child = joint.find("child").get("link")
        assert child not in parents
        parents[child] = joint.find("parent").get("link")
    assert links - parents.keys() == {"base_link"}
    assert set(parents.values()) <= links
    assert "lidar_link" in links


def test_the_urdf_has_the_measures_of_the_simulated_base():
    base = Base()
    hull = ROBOT.find("link[@name='base_link']/collision/geometry/cylinder")
    assert float(hull.get("radius")) == base.footprint_radius_m
    heights = {
        joint.find("child").get("link"): [float(v) for v in joint.find("origin").get("xyz").split()]
        for joint in ROBOT.iter("joint")
    }
    assert heights["lidar_link"] == [0.0, 0.0, LIDAR_HEIGHT_M]
    assert heights["left_wheel_link"] == [0.0, pytest.approx(base.track_m / 2), WHEEL_RADIUS_M]


def test_the_rviz_configuration_shows_what_the_brain_publishes():
    manager = yaml.safe_load((CONFIG / "brainos.rviz").read_text())["Visualization Manager"]
    assert manager["Global Options"]["Fixed Frame"] == "odom"
    topics = {
        display["Class"].split("/")[1]: display["Topic"]["Value"]
        for display in manager["Displays"]
        if "Topic" in display
    }
    assert topics == {"LaserScan": "scan", "Odometry": "odom", "MarkerArray": "world_model/markers"}
    assert any(display["Class"].endswith("/TF") for display in manager["Displays"])
