"""The set-up: which python it goes on with, what it refuses, what an interruption leaves."""

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
PACKAGES = ["python3.11", "python3.11-venv", "python3.11-dev"]


@pytest.fixture
def setup(tmp_path: Path) -> ModuleType:
    """scripts/setup.py as it would be in a clone of its own."""
    (tmp_path / "scripts").mkdir()
    file = shutil.copy(SCRIPTS / "setup.py", tmp_path / "scripts")
    spec = importlib.util.spec_from_file_location("setup_script", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Machine:
    """A machine whose python3 is 3.10; `installs` is what apt-get brings."""

    def __init__(self, setup: ModuleType, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder = folder
        self.installed: list[str] = []
        self.installs = True
        monkeypatch.setattr(setup.sys, "version_info", (3, 10, 12, "final", 0))
        monkeypatch.setattr(setup.os, "execv", self.execv)
        monkeypatch.setattr(setup, "apt_install", self.apt_install)
        monkeypatch.setenv("PATH", str(folder))
        folder.mkdir()

    def python(self, name: str, builds: bool = True) -> None:
        program = self.folder / name
        program.write_text(f"#!/bin/sh\nexit {0 if builds else 1}\n")
        program.chmod(0o755)

    def apt_install(self, packages: list[str]) -> None:
        self.installed += packages
        if self.installs:
            self.python("python3.11")

    def execv(self, path: str, arguments: list[str]) -> None:
        assert arguments == [path, *sys.argv]
        raise SystemExit(Path(path).name)


@pytest.fixture
def machine(setup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(setup, monkeypatch, tmp_path / "bin")


def test_an_old_python_hands_over_to_the_newest_that_can_build(
    setup: ModuleType, machine: Machine
) -> None:
    machine.python("python3.13", builds=False)
    machine.python("python3.12")
    machine.python("python3.11")
    with pytest.raises(SystemExit, match=r"^python3\.12$"):
        setup.check_python(None)
    assert not machine.installed


def test_where_there_is_no_newer_python_root_gets_one(setup: ModuleType, machine: Machine) -> None:
    machine.python("python3.11", builds=False)
    with pytest.raises(SystemExit, match=r"^python3\.11$"):
        setup.check_python(None)
    assert machine.installed == PACKAGES


def test_one_line_says_what_to_install_for_a_newer_python(
    setup: ModuleType, machine: Machine
) -> None:
    machine.installs = False
    with pytest.raises(SystemExit, match=r"^setup: python3 is 3\.10, .*: sudo apt install "
                                         + " ".join(PACKAGES)):
        setup.check_python(None)


def test_with_ros_the_python_stays(setup: ModuleType, machine: Machine) -> None:
    machine.python("python3.12")
    with pytest.raises(SystemExit, match="ROS 2 jazzy was built for this one"):
        setup.check_python("jazzy")


def test_a_new_enough_python_goes_on(setup: ModuleType, machine: Machine, monkeypatch: Any) -> None:
    monkeypatch.setattr(setup.sys, "version_info", (3, 11, 0, "candidate", 1))
    machine.python("python3.13")
    setup.check_python(None)


def test_this_python_can_build(setup: ModuleType) -> None:
    assert not subprocess.call([sys.executable, "-c", setup.CAN_BUILD])


@pytest.mark.parametrize("root", ["/tmp/sp ace", "/tmp/a:b", "/tmp/it's", "/tmp/a\\b", "/tmp/$x"])
def test_a_path_that_colcon_cannot_take_is_refused(setup: ModuleType, root: str) -> None:
    with pytest.raises(SystemExit, match=r"^setup: colcon cannot work where a path has .*: move /"):
        setup.check_path(root)


@pytest.mark.parametrize("root", ["/", "/home/me/ros2_ws/src/brain-os.v1+2", "/home/émile/~x@y=z,"])
def test_a_usual_path_is_not(setup: ModuleType, root: str) -> None:
    setup.check_path(root)


def test_a_machine_without_wheels_is_told_so(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup.os, "uname", lambda: SimpleNamespace(machine="aarch64"))
    monkeypatch.setattr(setup, "missing_packages", list)
    with pytest.raises(SystemExit, match="no wheels of ROS 2 for aarch64"):
        setup.check_machine(None)
    setup.check_machine("jazzy")


def test_a_second_set_up_waits_for_the_first_and_for_what_it_started(
    setup: ModuleType, tmp_path: Path
) -> None:
    first = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(first, fcntl.LOCK_EX)
    started = subprocess.Popen(["sleep", "60"], pass_fds=[first])
    os.close(first)
    code = "import runpy; runpy.run_path('scripts/setup.py')['lock']()"
    second = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, text=True,
                              stdout=subprocess.PIPE)
    assert second.stdout
    assert "waiting" in second.stdout.readline()
    assert second.poll() is None
    started.kill()
    started.wait()
    assert second.wait(10) == 0


def test_an_interrupted_build_is_not_taken_for_the_one_before_it(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = tmp_path / "brainos_msgs"
    source.write_text("old")
    steps: list[str] = []
    monkeypatch.setattr(setup, "run", lambda command, what, **_: steps.append(what))
    monkeypatch.setattr(setup.subprocess, "call", lambda *_, **__: 0)
    (tmp_path / "install").mkdir()

    def build() -> None:
        setup.build("brainos_msgs", "environment", None, ["brainos_msgs"], source.read_text())

    build()
    build()
    assert steps == ["old"]
    source.write_text("new")
    with monkeypatch.context() as interrupted:
        interrupted.setattr(setup, "run", lambda *_, **__: sys.exit(1))
        with pytest.raises(SystemExit):
            build()
    source.write_text("old")
    build()
    assert steps == ["old", "old"]


def test_a_step_that_fails_shows_what_it_said_itself_and_whether_the_network_is_missing(
    setup: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    setup.run(["echo", "earlier"], "well")
    with pytest.raises(SystemExit, match=r"^setup: a step failed; the whole story is in log/"):
        setup.run(["sh", "-c", "echo bad; exit 1"], "a step")
    assert capfd.readouterr().err == "bad\n"
    with pytest.raises(SystemExit, match=r"^setup: a step failed for want of a network"):
        setup.run(["sh", "-c", "echo 'NewConnectionError: no'; exit 1"], "a step")


def test_a_folder_that_cannot_be_written_is_one_line(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def set_up() -> None:
        raise PermissionError(13, "Permission denied", "/clone/log")

    monkeypatch.setattr(setup, "set_up", set_up)
    with pytest.raises(SystemExit, match=r"^setup: /clone/log: Permission denied$"):
        setup.main()


def clone(folder: Path) -> Path:
    """What env.sh reads of a clone that is set up."""
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/activate").touch()
    (folder / "scripts").mkdir()
    (folder / "install").mkdir()
    (folder / "install/brainos_ros.stamp").touch()
    for shell in ("bash", "zsh"):
        (folder / f"install/local_setup.{shell}").write_text(f"PYTHONPATH={shell}; PATH+=:$PWD\n")
    shutil.copy(SCRIPTS / "env.sh", folder / "scripts")
    return folder


def sourced(shell: str, folder: Path, **variables: str) -> list[str]:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    names = "$AMENT_PREFIX_PATH $PYTHONPATH"
    return subprocess.check_output(
        [shell, "-c", f". {folder.name}/scripts/env.sh && echo {names}"], text=True,
        cwd=folder.parent, env={"PATH": os.environ["PATH"], **variables},
    ).split()


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize("variables", [{}, {"CDPATH": "/tmp:."}, {"ROS_DISTRO": "jazzy"}])
def test_the_environment_is_found_whatever_is_set(
    tmp_path: Path, shell: str, variables: dict[str, str]
) -> None:
    folder = clone(tmp_path / "clone")
    assert sourced(shell, folder, **variables) == [f"{folder}/.venv", f"{folder}:{shell}"]


def test_the_environment_of_ros_stays(tmp_path: Path) -> None:
    variables = {"ROS_DISTRO": "jazzy", "AMENT_PREFIX_PATH": "/opt/ros/jazzy"}
    assert sourced("bash", clone(tmp_path / "clone"), **variables)[0] == "/opt/ros/jazzy"


def test_a_clone_that_is_not_set_up_says_so(tmp_path: Path) -> None:
    folder = clone(tmp_path / "clone")
    (folder / "install/brainos_ros.stamp").unlink()
    with pytest.raises(subprocess.CalledProcessError):
        sourced("bash", folder)


def test_the_command_is_found_through_links(tmp_path: Path) -> None:
    program = tmp_path / "install/lib/brainos_ros/brainos"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$# $1"\n')
    program.chmod(0o755)
    link = tmp_path / "brainos"
    link.symlink_to(SCRIPTS / "brainos")
    variables = {"PATH": os.environ["PATH"], "AMENT_PREFIX_PATH": f"/none:{tmp_path}/install"}
    said = subprocess.check_output([link, "a b", "c"], text=True, env=variables)
    assert said == "2 a b\n"
    bare = subprocess.run([link], env={}, capture_output=True, text=True, check=False)
    assert bare.returncode == 2
    assert "source install/setup.bash" in bare.stderr
