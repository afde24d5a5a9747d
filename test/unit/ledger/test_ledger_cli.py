"""`brainos ledger` as a person or a script uses it."""

import argparse
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from brainos_ros.cli import ledger as verb
from brainos_ros.errors import BrainError
from brainos_ros.ledger import Stream
from brainos_ros.ledger.frames import Damage
from brainos_ros.ledger.notes import SigningKey

KEY = str(SigningKey("brainos/memory/0").public)


class Shell:
    """Runs the verb on one robot's home and keeps what it printed."""

    def __init__(self, home: Path, capture: pytest.CaptureFixture[Any]) -> None:
        self.home, self._capture = home, capture
        self.code, self.out, self.err = 0, "", ""

    def __call__(self, what: str, *arguments: str, homeless: bool = False) -> str:
        parser = argparse.ArgumentParser(prog="brainos ledger")
        verb.add_arguments(parser)
        home = [] if homeless else ["--home", str(self.home)]
        self.code = verb.run(parser.parse_args([what, *arguments, *home]))
        self.out, self.err = self._capture.readouterr()
        return self.out

    def json(self, what: str, *arguments: str) -> Any:
        return json.loads(self(what, *arguments, "--json"))


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    with Stream.open(tmp_path / "ledger", "memory", segment_bytes=2048) as stream:
        for number in range(40):
            stream.event("episode", {"n": number, "place": "hall"})
        stream.put("maps/hall", b"a map\n")
    return Shell(tmp_path, capsys)


def test_put_view_move_delete(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shell("view", "memory", "maps/hall") == "a map\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"typed")))
    assert shell.json("put", "memory", "notes/a", "-")["new"] is True
    assert shell("view", "memory", "notes/a") == "typed"
    assert shell.json("view", "memory", "notes/a")["body_base64"] == "dHlwZWQ="
    (shell.home / "file").write_bytes(b"typed")
    assert shell.json("put", "memory", "notes/a", str(shell.home / "file"))["new"] is False
    assert "unchanged" in shell("put", "memory", "notes/a", str(shell.home / "file"))
    assert "notes/a -> notes/b" in shell("move", "memory", "notes/a", "notes/b")
    assert shell.json("delete", "memory", "notes/b")["mode"] == "tombstone"
    with pytest.raises(BrainError, match="nothing is live at path 'notes/b'"):
        shell("view", "memory", "notes/b")
    erased = shell.json("delete", "memory", "notes/b", "--purge", "--reason", "asked for")
    assert erased["mode"] == "purge"
    erased = shell.json("delete", "memory", "--event", "3", "--purge", "--reason", "asked for")
    assert "(erased)" in shell("walk", "memory", "--from", "3", "--limit", "1")
    assert shell("doctor", "memory")
    assert shell.code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["view", "pfc", "a"], "is not a ledger stream"),
        (["delete", "memory"], "give a path, or events"),
        (["delete", "memory", "--event", "3"], "add --purge and --reason"),
        (["delete", "memory", "maps/hall", "--purge"], "say why"),
        (["prove", "memory"], "give a sequence number"),
        (["prove", "memory", "999"], "is not under a signed head"),
        (["prune", "memory", "--older-than", "soon", "--backup", "x"], "is no age"),
        (["put", "memory", "../x", "/dev/null"], "is not allowed"),
        (["prune", "memory", "--older-than", "\u00b2d", "--backup", "x"], "is no age"),
        (["prune", "memory", "--older-than", f"{'9' * 5000}d", "--backup", "x"], "is no age"),
        (["import", "memory", "/no/such/file", "--key", "a+b+c"], "is not a verifier key"),
    ],
)
def test_refusals_say_what_would_be_right(shell: Shell, arguments: list[str], words: str) -> None:
    with pytest.raises(BrainError, match=words):
        shell(*arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["doctor", "memory", "--head"], "head of a stream"),
        (["prove", "memory", "--since"], "head of a stream"),
        (["verify-proof", "bundle.json", "--key"], "not a verifier key"),
        (["import", "memory", "out.tar", "--key"], "not a verifier key"),
    ],
)
def test_a_file_that_is_no_head_or_key_is_refused(
    shell: Shell, arguments: list[str], words: str
) -> None:
    path = shell.home / "file"
    for content, said in ((b"just a text\n", words), (b"\xff\xfe\x00x", "is not a text file")):
        path.write_bytes(content)
        with pytest.raises(BrainError, match=said) as refused:
            shell(*arguments, str(path), homeless=arguments[0] == "verify-proof")
        assert not isinstance(refused.value, Damage)


@pytest.mark.parametrize(
    "arguments",
    [
        ["walk", "memory", "--limit", "-1"],
        ["walk", "memory", "--from", "-1"],
        ["tail", "memory", "-n", "-5"],
        ["tail", "memory", "-n", "\u00b2"],
        ["delete", "memory", "--event", "-1"],
    ],
)
def test_a_count_below_zero_is_wrong_usage(shell: Shell, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        shell(*arguments)
    assert refused.value.code == 2


def brainos(*arguments: str, out: int = subprocess.PIPE, **environment: str) -> tuple[int, Any]:
    """Exit code, and what the command printed: on standard error where it has an `out`."""
    done = subprocess.run(
        [sys.executable, "-m", "brainos_ros.cli.main", *arguments],
        env={**os.environ, **environment},
        stdout=out,
        stderr=subprocess.PIPE,
        check=False,
    )
    return done.returncode, (done.stdout or done.stderr).decode()


def command(home: Path, *arguments: str, out: int, buffered: bool) -> tuple[int, str]:
    """Exit code and standard error of the command, its standard output being `out`."""
    unbuffered = "" if buffered else "1"
    return brainos(
        "ledger", *arguments, "--home", str(home), out=out, PYTHONUNBUFFERED=unbuffered
    )


@pytest.mark.parametrize("arguments", [["--help"], ["conscience", "--help"]])
def test_no_verb_ends_in_a_traceback_where_nothing_can_be_printed(arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        code, said = brainos(*arguments, out=full.fileno(), PYTHONUNBUFFERED="")
    assert (code, said) == (2, f"brainos {arguments[0]}: No space left on device\n")
    reading, writing = os.pipe()
    os.close(reading)
    assert brainos(*arguments, out=writing, PYTHONUNBUFFERED="") == (1, "")
    os.close(writing)


def test_records_are_printed_on_a_line_each_whatever_they_hold(shell: Shell) -> None:
    forged = "x\n        9  2026-01-01T00:00:00.000000Z  approval.granted     {}\x1b[8m\u202e ü"
    with Stream.open(shell.home / "ledger", "memory") as stream:
        number = stream.put("maps/a", forged.encode())
    (line,) = shell("walk", "memory", "--from", str(number), "--limit", "1").splitlines()
    assert "x\\n        9" in line
    assert line.endswith("{}\\x1b[8m\\u202e ü")
    assert shell.json("tail", "memory", "-n", "1")["content"] == f"maps/a: {forged}"
    home = str(shell.home)
    for encoding in ("ascii", "utf-8"):
        code, printed = brainos(
            "ledger", "walk", "memory", "--home", home, PYTHONIOENCODING=encoding
        )
        assert (code, len(printed.splitlines())) == (0, number + 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["view", "memory", "\udcff"],
        ["put", "memory", "\udcff", "/dev/null"],
        ["move", "memory", "maps/hall", "\udcff"],
        ["delete", "memory", "\udcff", "--purge", "--reason", "asked for"],
        ["delete", "memory", "--event", "3", "--purge", "--reason", "von M\udcfcller"],
        ["import", "memory", "x.tar", "--key", KEY, "--prefix", "\udcff"],
    ],
)
def test_what_is_no_text_is_wrong_usage(
    shell: Shell, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        shell(*arguments)
    assert refused.value.code == 2
    assert "is no UTF-8; give Unicode text" in capsys.readouterr().err


def test_a_key_is_read_from_a_file_whatever_its_name(shell: Shell) -> None:
    key = shell.json("state")[0]["keys"][0]
    bundle, file = shell.home / "bundle.json", shell.home / "c++/key"
    bundle.write_text(shell("prove", "memory", "7"))
    file.parent.mkdir()
    file.write_text(key + "\n")
    told = json.loads(shell("verify-proof", str(bundle), "--key", str(file), homeless=True))
    assert told["valid"] is True
    file.write_text("no key")
    with pytest.raises(BrainError, match="nor a file with one"):
        shell("verify-proof", str(bundle), "--key", str(file), homeless=True)


@pytest.mark.parametrize("buffered", [False, True])
def test_what_cannot_be_printed_is_said_with_what_was_done(shell: Shell, buffered: bool) -> None:
    (shell.home / "file").write_bytes(b"written")
    put = "put", "memory", "notes/a", str(shell.home / "file")
    with open("/dev/full", "wb") as full:
        told = command(shell.home, "walk", "memory", out=full.fileno(), buffered=buffered)
        assert told == (2, "brainos ledger: No space left on device\n")
        code, said = command(shell.home, *put, out=full.fileno(), buffered=buffered)
        assert code == 2
        assert "done, but standard output takes nothing (No space left on device): record" in said
    assert shell("view", "memory", "notes/a") == "written"
    reading, writing = os.pipe()
    os.close(reading)
    assert command(shell.home, "walk", "memory", out=writing, buffered=buffered) == (1, "")
    code, said = command(shell.home, *put, out=writing, buffered=buffered)
    assert (code, "(Broken pipe): unchanged: record" in said) == (2, True)
    os.close(writing)


@pytest.mark.parametrize("harm", ["signature", "more than one", "no record", "below"])
def test_what_is_no_head_is_not_blamed_on_the_stream(shell: Shell, harm: str) -> None:
    first, *others = (each["note"] for each in shell.json("checkpoints", "memory"))
    origin, _, rest = first.split("\n", 2)
    head = shell.home / "head"
    head.write_text(
        {
            "signature": first.rstrip("\n")[:-3] + "\n",
            "more than one": first + "\n" + others[0],
            "no record": f"{origin}\n0\n{rest}",
            "below": f"{origin}\n-3\n{rest}",
        }[harm]
    )
    for arguments in (["doctor", "memory", "--head"], ["prove", "memory", "--since"]):
        with pytest.raises(BrainError, match="holds no head of a stream"):
            shell(*arguments, str(head))


@pytest.mark.parametrize("what", [["put", "memory", "x"], ["import", "memory", "--key", KEY]])
def test_a_file_that_is_not_there_is_named(shell: Shell, what: list[str]) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        shell(*what, "/no/such/file")
    assert missing.value.filename == "/no/such/file"


def test_state_stats_checkpoints_walk_tail(shell: Shell) -> None:
    (state,) = shell.json("state")
    assert (state["stream"], state["state"], state["signed_records"]) == ("memory", "READY", 42)
    assert "READY" in shell("state", "memory")
    (stats,) = shell.json("stats")
    assert stats["by_kind"]["episode"] == 40
    assert "episode" in shell("stats")
    heads = shell.json("checkpoints", "memory")
    assert heads[-1]["size"] == 42
    assert heads[-1]["root"] in shell("checkpoints", "memory")
    lines = shell("walk", "memory", "--from", "5", "--limit", "3").splitlines()
    assert [line.split()[0] for line in lines] == ["5", "6", "7"]
    record = json.loads(shell("tail", "memory", "-n", "1", "--json"))
    assert (record["sequence"], record["content"]) == (41, "maps/hall: a map\n")
    assert len(shell("tail", "memory").splitlines()) >= 10


def test_doctor_finds_and_repairs(shell: Shell) -> None:
    (found,) = shell.json("doctor")
    assert len(found["checks"]) == 15
    assert found["state"] == "READY"
    (shell.home / "ledger/memory/tiles/0").write_bytes(b"")
    assert "FAIL" in shell("doctor", "memory")
    assert "what to do: run 'brainos ledger doctor --repair'" in shell.out
    assert shell.code == 1
    assert "repaired: rebuilt tiles" in shell("doctor", "memory", "--repair")
    assert shell.code == 0
    head = shell.home / "head"
    head.write_text(shell.json("checkpoints", "memory")[-1]["note"])
    for _ in range(2):
        shell("doctor", "memory", "--head", str(head))
        assert shell.code == 0
        shell("prove", "memory", "--since", str(head))
        head.write_text(head.read_text() + "\n\n")
    log = shell.home / "ledger/memory/log/0000000000000000.seg"
    data = bytearray(log.read_bytes())
    data[400] ^= 1
    log.write_bytes(data)
    assert "FROZEN_HUMAN" in shell("doctor")
    assert "restore the last backup" in shell.out
    assert shell.code == 1


def test_a_log_that_breaks_off_is_not_printed_as_a_whole_one(shell: Shell) -> None:
    log = shell.home / "ledger/memory/log"
    data = bytearray((newest := max(log.iterdir())).read_bytes())
    data[130] ^= 1
    newest.write_bytes(data)
    for what in (["walk", "memory"], ["tail", "memory"], ["export", "memory", "x.csv", "--csv"]):
        arguments = [str(shell.home / each) if each == "x.csv" else each for each in what]
        shell(*arguments)
        assert (shell.code, "run 'brainos ledger doctor'" in shell.err) == (1, True)


def test_prove_and_verify(shell: Shell) -> None:
    (state,) = shell.json("state")
    key = state["keys"][0]
    bundle = shell.home / "bundle.json"
    bundle.write_text(shell("prove", "memory", "7"))
    told = json.loads(shell("verify-proof", str(bundle), "--key", key, homeless=True))
    assert (told["valid"], told["sequence"]) == (True, 7)
    old = shell.home / "old"
    old.write_text(shell.json("checkpoints", "memory")[0]["note"])
    new_key = shell.json("rotate-key", "memory")["key"]
    bundle.write_text(shell("prove", "memory", "--since", str(old)))
    (shell.home / "key").write_text(key + "\n")
    told = json.loads(
        shell("verify-proof", str(bundle), "--key", str(shell.home / "key"), homeless=True)
    )
    assert (told["valid"], told["old_size"]) == (True, 1)
    shell("verify-proof", str(bundle), "--key", new_key, homeless=True)
    assert shell.code == 1


@pytest.mark.parametrize("harm", ["cut", "changed"])
def test_a_proof_from_unsound_nodes_says_what_mends_them(shell: Shell, harm: str) -> None:
    old = shell.home / "old"
    with Stream.open(shell.home / "ledger", "memory") as stream:
        old.write_text(stream.checkpoint().note)
        for number in range(40):
            stream.event("episode", {"n": number})
    for level in (shell.home / "ledger/memory/tiles").iterdir():
        nodes = level.read_bytes()
        level.write_bytes(b"" if harm == "cut" else bytes(byte ^ 1 for byte in nodes))
    for what in (["7"], ["--since", str(old)]):
        assert shell("prove", "memory", *what) == ""
        assert shell.code == 1
        assert shell.err.endswith(
            "; run 'brainos ledger doctor --repair', which builds the stored nodes anew\n"
        )
    shell("doctor", "memory", "--repair")
    for what in (["7"], ["--since", str(old)]):
        assert "brainos-ledger-" in shell("prove", "memory", *what)


def test_consolidate_back_up_prune_restore(shell: Shell) -> None:
    done = shell.json("consolidate", "memory")
    assert done["compressed"] > 0
    assert "0 segments compressed" in shell("consolidate", "memory")
    copy = str(shell.home / "copy")
    assert shell.json("backup", "memory", copy)["records"] == 42
    assert "restored and verified: 42 records" in shell("backup", "memory", copy)
    assert shell.json("prune", "memory", "--older-than", "90d", "--backup", copy) == {"pruned": []}
    report = shell.json("backup", "again", copy, "--restore")
    assert report["verified"] is True
    assert len(shell.json("state")) == 2


def test_export_and_import(shell: Shell) -> None:
    (state,) = shell.json("state")
    out = str(shell.home / "out.tar")
    first = shell.json("export", "memory", out)
    assert shell.json("export", "memory", out) == first
    table = shell.home / "out.csv"
    assert shell.json("export", "memory", str(table), "--csv")["records"] == 42
    assert table.read_text().count("episode") == 40
    Stream.open(shell.home / "ledger", "other").close()
    done = shell.json("import", "other", out, "--key", state["keys"][0])
    assert (done["put"], done["records"]) == (1, 42)
    assert "1 unchanged" in shell("import", "other", out, "--key", state["keys"][0])


def test_reading_beside_a_writer_and_writing_not(shell: Shell) -> None:
    with Stream.open(shell.home / "ledger", "memory") as stream:
        stream.event("note", b"at work")
        assert shell("view", "memory", "maps/hall") == "a map\n"
        assert shell.json("state")[0]["writing"] is True
        shell("doctor", "memory")
        assert shell.code == 0
        with pytest.raises(BrainError, match="is being written by process"):
            shell("delete", "memory", "maps/hall")
        with pytest.raises(BrainError, match="is being written by process"):
            shell("doctor", "memory", "--repair")


def test_viewing_changes_nothing(shell: Shell) -> None:
    copy = str(shell.home / "copy")
    shell("backup", "memory", copy)
    shell.home /= "elsewhere"
    shell("backup", "memory", copy, "--restore")
    restored = shell.home / "ledger/memory"
    before = {path: path.stat().st_mtime_ns for path in restored.rglob("*")}
    assert shell("view", "memory", "maps/hall") == "a map\n"
    assert {path: path.stat().st_mtime_ns for path in restored.rglob("*")} == before
    assert shell.json("state", "memory")[0]["state"] == "READY"


def test_what_is_live_is_viewed_beside_a_writer_that_purged(shell: Shell) -> None:
    with Stream.open(shell.home / "ledger", "memory") as stream:
        stream.put("maps/attic", b"gone")
        stream.purge("maps/attic", "asked for")
        assert shell("view", "memory", "maps/hall") == "a map\n"


def test_no_streams_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BrainError, match="there is no stream under"):
        Shell(tmp_path, capsys)("state")
