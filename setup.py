from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

NODES = ["pfc", "conscience", "memory", "world_model", "genome_sync", "watchdog"]


def tree(folder: str) -> list[tuple[str, list[str]]]:
    """Every folder below `folder` with its files, to be installed under share/."""
    folders = [Path(folder), *(p for p in Path(folder).rglob("*") if p.is_dir())]
    return [
        (f"share/brainos_ros/{path}", [str(f) for f in path.iterdir() if f.is_file()])
        for path in folders
    ]


setup(
    name="brainos_ros",
    version="0.1.0",
    packages=find_packages(include=["brainos_ros", "brainos_ros.*"]),
    package_data={"brainos_ros": ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/brainos_ros"]),
        ("share/brainos_ros", ["package.xml"]),
        ("bin", ["scripts/brainos"]),
        ("share/brainos_ros/launch", glob("launch/*.launch.py")),
        *tree("config"),
    ],
    python_requires=">=3.11",
    install_requires=["setuptools"],
    extras_require={"sim": ["mujoco", "pillow"], "test": ["pytest"]},
    zip_safe=True,
    maintainer="BrainOS developers",
    maintainer_email="brainos@users.noreply.github.com",
    description="A robot's cognitive layer as separate ROS 2 lifecycle nodes.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            *(f"{node} = brainos_ros.{node}.node:main" for node in NODES),
            "brainos = brainos_ros.cli.main:main",
            "composed = brainos_ros.ros.composed:main",
            "sim_robot = brainos_ros.robots.sim_robot_node:main",
            "log_player = brainos_ros.robots.log_player_node:main",
        ]
    },
)
