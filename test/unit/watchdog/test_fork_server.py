"""Real forks, from a process of their own: this one has threads."""

import json
import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waiting import wait_for

from brainos_ros.watchdog import fork_server, processes

WATCHDOG = """
import json, os, select, signal, sys, time
from brainos_ros.watchdog import fork_server, processes
preload = lambda: None
{before}
server = fork_server.begin(preload)
def code(text, *arguments):
    return server.start((sys.executable, "-c", text, *arguments))
def how(process):
    assert select.select([process.pidfd], [], [], 10)[0]
    return process.ended()
def say(what):
    print(json.dumps(what), flush=True)
ready = server.ready(10.0)
{then}
"""


@contextmanager
def watchdog(then: str, before: str = "") -> Iterator["subprocess.Popen[str]"]:
    """A process that has a fork server and does `then`."""
    script = WATCHDOG.format(before=textwrap.dedent(before), then=textwrap.dedent(then))
    process = subprocess.Popen([sys.executable, "-c", script], text=True, stdout=subprocess.PIPE,
                               stdin=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(then: str, before: str = "") -> Any:
    with watchdog(then, before) as process:
        out, _ = process.communicate(timeout=30)
        return json.loads(out)


def server_of(pid: int) -> int:
    """The pid of the fork server of a watchdog."""
    def found() -> int | None:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        shown = {int(child): Path(f"/proc/{child}/cmdline").read_text() for child in children}
        return next((child for child, line in shown.items() if fork_server.TITLE[2] in line), None)

    return wait_for(found)


def test_it_runs_what_python_would_and_shows_that() -> None:
    program = textwrap.dedent("""
        import json, os, signal, sys
        print(json.dumps({
            "shown": open("/proc/self/cmdline").read().split(chr(0))[:-1],
            "argv": sys.argv,
            "name": __name__,
            "leads a session": os.getsid(0) == os.getpid(),
            "files": sorted(os.listdir("/proc/self/fd"))[:-1],  # the last is the folder itself
            "masked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
            "asked to end, ends": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
        }))
    """)
    long = "x" * 3000
    assert said(f"how(code({program!r}, '--ros-args', {long!r}))") == {
        "shown": [sys.executable, "-c", program, "--ros-args", long],
        "argv": ["-c", "--ros-args", long],
        "name": "__main__",
        "leads a session": True,
        "files": ["0", "1", "2"],
        "masked": [],
        "asked to end, ends": True,
    }


def test_ends_in_words() -> None:
    assert said("""
        killed = code("import time; time.sleep(60)")
        killed.signal(signal.SIGKILL)
        say([how(killed), how(code("raise SystemExit(3)")), how(code("1 / 0")), how(code(""))])
    """) == ["its process was killed by SIGKILL", "its process exited with code 3",
             "its process exited with code 1", "its process exited with code 0"]


def test_what_was_preloaded_is_there() -> None:
    assert said("""
        how(code("import sys, json; print(json.dumps('decimal' in sys.modules))"))
    """, "def preload(): import decimal") is True


def test_what_cannot_be_preloaded_is_nobodys_end_but_its_own() -> None:
    assert said("say([ready, how(code(''))])", "def preload(): 1 / 0") == [
        True, "its process exited with code 0"]


def test_a_process_that_begins_is_found_by_then() -> None:
    assert said("""
        living = code("import time; time.sleep(60)")
        say(open(f"/proc/{living.pid}/cmdline").read().split(chr(0))[2])
        living.signal(signal.SIGKILL)
    """) == "import time; time.sleep(60)"


def test_what_it_shows_lasts_as_long_as_the_process() -> None:
    program = textwrap.dedent("""
        import builtins, os
        class Last:
            def __del__(self, kill=os.kill, pid=os.getpid()):
                kill(pid, 19)
        builtins.last = Last()
    """)
    assert said(f"""
        ending = code({program!r})
        def of(name):
            return open(f"/proc/{{ending.pid}}/{{name}}", errors="replace").read()
        while of("stat").rpartition(")")[2].split()[0] != "T":
            time.sleep(0.01)
        say(of("cmdline").split(chr(0))[0] == sys.executable)
        ending.signal(signal.SIGKILL)
    """) is True


def test_ends_are_known_where_the_launcher_ignored_them() -> None:
    assert said("""
        say([how(code("raise SystemExit(3)")), server.close(), code("")])
    """, "signal.signal(signal.SIGCHLD, signal.SIG_IGN)") == [
        "its process exited with code 3", None, None]


def test_only_one_wait_for_a_server_that_is_silent() -> None:
    with watchdog("""
        nodes = [code("import time; time.sleep(60)") for _ in range(4)]
        say(ready)
        input()
        for node in nodes:
            node.signal(signal.SIGKILL)
        began = time.monotonic()
        said = {how(node) for node in nodes}
        say([sorted(said), code(""), time.monotonic() - began < 1.9 * fork_server.ANSWER_S,
             server.lost])
    """) as process:
        assert process.stdout
        assert process.stdin
        process.stdout.readline()
        os.kill(server_of(process.pid), signal.SIGSTOP)
        process.stdin.write("\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == [
            ["its process ended"], None, True, "it does not answer: timed out"]


def test_a_stopped_server_ends_with_its_watchdog() -> None:
    with watchdog("say(ready); input()") as process:
        assert process.stdout
        process.stdout.readline()
        server = processes.adopt(server_of(process.pid))
        assert server
        server.signal(signal.SIGSTOP)
        process.kill()
        assert select.select([server.pidfd], [], [], 10)[0]
        server.ended()


def test_a_watchdog_without_a_free_descriptor_does_not_lose_its_server() -> None:
    assert said("""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        living = code("import time; time.sleep(60)")
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limit[1]))
        forked = code("")
        living.signal(signal.SIGKILL)
        ended = living.ended()
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        say([forked, ended, server.lost, how(code(""))])
    """, "import resource") == [None, "its process ended", "", "its process exited with code 0"]


def test_nothing_is_said_twice_nor_after_the_watchdog() -> None:
    script = WATCHDOG.format(before="print('once', end='')", then="")
    for end in ("", "os._exit(0)"):
        done = subprocess.run([sys.executable, "-c", script + end], text=True, check=True,
                              capture_output=True)
        assert (done.stdout, done.stderr) == ("once", "")


def test_what_is_no_python_program_is_started_the_ordinary_way() -> None:
    assert said("say(server.start(('/bin/true',)))") is None


def test_without_the_right_to_show_a_command_line_there_is_no_server() -> None:
    assert said("say([ready, code('')])", """
        fork_server.show_command_line = lambda argv: False
    """) == [False, None]


def test_a_killed_server_leaves_what_it_started_and_starts_no_more() -> None:
    with watchdog("""
        living = code("import time; time.sleep(60)")
        say(living.pid)
        input()
        say([code(""), os.path.exists(f"/proc/{living.pid}")])
        living.signal(signal.SIGKILL)
        say(how(living))
    """) as process:
        assert process.stdout
        assert process.stdin
        json.loads(process.stdout.readline())
        os.kill(server_of(process.pid), signal.SIGKILL)
        out, _ = process.communicate("\n", timeout=30)
        assert [json.loads(line) for line in out.splitlines()] == [
            [None, True], "its process ended"]


def test_a_stopped_server_is_ended_and_what_it_had_begun_never_runs(tmp_path: Path) -> None:
    mark = tmp_path / "begun"
    with watchdog(f"""
        say(ready)
        input()
        began = time.monotonic()
        say([code("open({str(mark)!r}, 'w')"), time.monotonic() - began < 1.0])
        input()
    """) as process:
        assert process.stdout
        assert process.stdin
        process.stdout.readline()
        server = server_of(process.pid)
        os.kill(server, signal.SIGSTOP)
        process.stdin.write("\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == [None, True]
        wait_for(lambda: processes.start_time(server) is None)
        assert not mark.exists()


def test_a_process_that_nobody_waits_for_any_more_never_runs(tmp_path: Path) -> None:
    mark = tmp_path / "begun"
    assert said(f"""
        fork_server.ANSWER_S = 1e-6
        say(code("open({str(mark)!r}, 'w')"))
        time.sleep(0.5)
    """) is None
    assert not mark.exists()


def test_the_server_ends_with_its_watchdog_and_what_it_started_lives_on() -> None:
    with watchdog("""
        say(code("import time; time.sleep(60)").pid)
        input()
    """) as process:
        assert process.stdout
        living = processes.adopt(json.loads(process.stdout.readline()))
        server = processes.adopt(server_of(process.pid))
        assert living
        assert server
        process.kill()
        assert select.select([server.pidfd], [], [], 10)[0]
        server.ended()
        assert processes.start_time(living.pid)
        living.end(0.1)


def test_it_is_found_by_its_command_line(tmp_path: Path) -> None:
    parameters = str(tmp_path / processes.PARAMETERS)
    assert said(f"""
        argv = (sys.executable, "-c", "import time; time.sleep(60)", "--ros-args",
                "--params-file", {parameters!r}, "-r", "__ns:=/r1", "-r", "__node:=forked")
        process = server.start(argv)
        until, found = time.monotonic() + 10, []
        while not found and time.monotonic() < until:
            domain = os.environ.get("ROS_DOMAIN_ID", "0")
            found = list(processes.running(argv, (argv[2],), "forked", "r1", domain))
        say(found == [process.pid])
        process.signal(signal.SIGKILL)
    """) is True
