"""Halt and reset: the latch on disk, the outlet, every interleaving of the two."""

import itertools
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from brainos_ros.conscience import halt as halt_module
from brainos_ros.conscience.credentials import (
    challenge_file,
    load_key,
    load_operators,
    provision,
    reset_token,
    sign,
)
from brainos_ros.conscience.halt import NOT_ARMED, Latch, write_armed
from brainos_ros.conscience.outlet import Outlet
from brainos_ros.conscience.reset import ResetDesk
from brainos_ros.errors import BrainError, ErrorCode

ROBOT = "robot-1"


@pytest.fixture
def armed(tmp_path: Path) -> Path:
    write_armed(tmp_path, ROBOT, "anna")
    return tmp_path


def test_no_file_means_halted(tmp_path: Path) -> None:
    assert Latch(tmp_path, ROBOT).cause == NOT_ARMED
    assert Latch(tmp_path / "nowhere", ROBOT).halted


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"robot": "robot-2"}', "{}", "\xff"])
def test_a_file_that_does_not_name_this_robot_is_no_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "armed").write_bytes(content.encode("latin-1"))
    assert Latch(tmp_path, ROBOT).halted


def test_a_robot_without_operators_is_never_armed(tmp_path: Path) -> None:
    write_armed(tmp_path, "", "anna")
    assert Latch(tmp_path, "").halted


def test_a_halt_while_the_disk_is_read_stays(
        armed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    latch = Latch(armed, "robot-2")
    real = Path.read_text

    def halting(path: Path) -> str:
        latch.halt("button")
        latch.cause = NOT_ARMED
        return real(path)

    monkeypatch.setattr(Path, "read_text", halting)
    latch.read(ROBOT)
    assert latch.halted


def test_a_halt_is_in_memory_at_once_and_on_disk_when_told(armed: Path) -> None:
    latch = Latch(armed, ROBOT)
    assert not latch.halted
    latch.halt("button")
    assert latch.cause == "button"
    assert not Latch(armed, ROBOT).halted
    assert latch.forget_armed() == ""
    assert Latch(armed, ROBOT).halted
    assert latch.forget_armed() == ""


def test_a_halt_without_a_cause_is_still_one(armed: Path) -> None:
    latch = Latch(armed, ROBOT)
    latch.halt("")
    assert latch.halted


def test_what_the_disk_refuses_is_said_and_the_halt_stays(armed: Path) -> None:
    latch = Latch(armed, ROBOT)
    (armed / "armed").unlink()
    (armed / "armed").mkdir()
    latch.halt("button")
    assert "could not be removed" in latch.forget_armed()
    assert latch.halted


def test_reading_again_never_ends_a_halt_by_call(armed: Path) -> None:
    latch = Latch(armed, ROBOT)
    latch.halt("button")
    latch.read(ROBOT)
    assert latch.cause == "button"
    fresh = Latch(armed, "robot-2")
    assert fresh.cause == NOT_ARMED
    fresh.read(ROBOT)
    assert not fresh.halted
    (armed / "armed").unlink()
    fresh.read(ROBOT)
    assert fresh.cause == NOT_ARMED


def test_a_stand_by_that_takes_over_follows_the_reset_it_did_not_hear(armed: Path) -> None:
    active, stand_by = Latch(armed, ROBOT), Latch(armed, ROBOT)
    for latch in (active, stand_by):
        latch.halt("button")
        assert latch.forget_armed() == ""
    stand_by.read(ROBOT, anew=True)
    assert stand_by.cause == "button", "nobody reset it"
    active.arm("anna", active.generation)
    stand_by.read(ROBOT)
    assert stand_by.halted, "only taking over asks the disk anew"
    stand_by.read(ROBOT, anew=True)
    assert not stand_by.halted


@pytest.mark.parametrize("told", [False, True])
def test_a_halt_that_is_not_on_disk_outlives_taking_over(armed: Path, told: bool) -> None:
    latch = Latch(armed, ROBOT)
    latch.halt("button")
    if told:
        (armed / "armed").rename(armed / "aside")
        (armed / "armed").mkdir()
        assert latch.forget_armed()
        (armed / "armed").rmdir()
        (armed / "aside").rename(armed / "armed")
    latch.read(ROBOT, anew=True)
    assert latch.cause == "button"


def test_a_halt_that_only_a_stand_by_heard_is_found_on_disk(armed: Path) -> None:
    active, stand_by = Latch(armed, ROBOT), Latch(armed, ROBOT)
    assert active.look() == ""
    stand_by.halt("button")
    stand_by.forget_armed()
    assert "halted elsewhere" in active.look()
    assert active.halted
    active.arm("anna", active.generation)
    assert active.look() == ""


def test_arming_is_durable_and_ends_the_halt(tmp_path: Path) -> None:
    latch = Latch(tmp_path, ROBOT)
    latch.arm("anna", latch.generation)
    assert not latch.halted
    assert json.loads((tmp_path / "armed").read_text()) == {"robot": ROBOT, "operator": "anna"}
    assert not Latch(tmp_path, ROBOT).halted
    assert sorted(path.name for path in tmp_path.iterdir()) == ["armed"]


def test_a_halt_after_the_reset_began_wins(tmp_path: Path) -> None:
    latch = Latch(tmp_path, ROBOT)
    before = latch.generation
    latch.halt("button")
    with pytest.raises(BrainError, match="halted again") as refusal:
        latch.arm("anna", before)
    assert refusal.value.code == ErrorCode.CONSCIENCE_HALTED
    assert latch.cause == "button"
    assert not (tmp_path / "armed").exists()


@pytest.mark.parametrize("call", ["write", "fsync", "replace", "open"])
def test_each_step_of_arming_that_fails_leaves_it_halted(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    latch = Latch(tmp_path, ROBOT)

    def fails(*args: Any, **kwargs: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(halt_module.os, "fdopen" if call == "write" else call, fails)
    with pytest.raises(BrainError, match="No space left") as refusal:
        latch.arm("anna", latch.generation)
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())
    assert refusal.value.code == ErrorCode.LEDGER_REFUSED
    assert latch.halted
    assert Latch(tmp_path, ROBOT).halted


def test_a_directory_that_cannot_be_synced_leaves_it_halted(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(directory: Path) -> None:
        raise OSError(5, "Input/output error")

    latch = Latch(tmp_path, ROBOT)
    monkeypatch.setattr(halt_module, "_sync_directory", fails)
    with pytest.raises(BrainError, match="Input/output"):
        latch.arm("anna", latch.generation)
    assert latch.halted
    assert Latch(tmp_path, ROBOT).halted


def test_file_and_directory_are_on_disk_before_it_counts(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[bool, int, bool]] = []
    real = halt_module.os.fsync

    def watched(descriptor: int) -> None:
        found = os.fstat(descriptor)
        directory = stat.S_ISDIR(found.st_mode)
        armed = (tmp_path / "armed").exists()
        synced.append((directory, 0 if directory else found.st_size, armed))
        real(descriptor)

    monkeypatch.setattr(halt_module.os, "fsync", watched)
    latch = Latch(tmp_path, ROBOT)
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    latch.arm("anna", latch.generation)
    size = (tmp_path / "armed").stat().st_size
    assert synced == [(False, size, False), (True, 0, True)]
    latch.halt("button")
    assert latch.forget_armed() == ""
    assert synced[2:] == [(True, 0, False)]
    assert latch.forget_armed() == ""
    assert len(synced) == 3
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before


def test_a_second_reset_prepares_its_own_file(tmp_path: Path) -> None:
    latch = Latch(tmp_path, ROBOT)
    for operator in ("anna", "ben"):
        latch.stage(operator)
        latch.arm(operator, latch.generation)
        assert not latch.halted
        assert json.loads((tmp_path / "armed").read_text())["operator"] == operator
        latch.halt("button")
        latch.forget_armed()
    latch.arm("carl", latch.generation)
    assert not latch.halted


def test_a_file_that_cannot_be_put_in_place_leaves_nothing_behind(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(halt_module, "_sync_directory", synced.append)
    halt_module.write_durably(tmp_path / "key", b"x")
    assert synced == [tmp_path]

    def fails(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(halt_module.os, "replace", fails)
    with pytest.raises(OSError, match="No space left"):
        halt_module.write_durably(tmp_path / "key", b"y")
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    assert (tmp_path / "key").read_bytes() == b"x"


def test_a_file_may_be_for_its_owner_alone(tmp_path: Path) -> None:
    halt_module.write_durably(tmp_path / "key", b"x", mode=0o600)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    halt_module.write_durably(tmp_path / "key", b"y")
    assert (tmp_path / "key").read_bytes() == b"y"


class Wheels:
    """What the base was last told, and everything before."""

    def __init__(self) -> None:
        self.told: list[tuple[float, float]] = []

    def publish(self, linear: float, angular: float) -> None:
        self.told.append((linear, angular))


def test_a_command_that_a_halt_overtakes_is_followed_by_zero(armed: Path) -> None:
    latch, wheels = Latch(armed, ROBOT), Wheels()
    outlet = Outlet(latch)

    def publish(linear: float, angular: float) -> None:
        latch.halt("button")
        wheels.publish(linear, angular)

    outlet.publish = publish
    outlet.send(0.5, 0.2)
    assert wheels.told == [(0.5, 0.2), (0.0, 0.0)]


def test_the_outlet_sends_nothing_but_zero_while_halted(armed: Path) -> None:
    latch, wheels = Latch(armed, ROBOT), Wheels()
    outlet = Outlet(latch)
    outlet.send(1.0, 0.5)
    outlet.zero()
    outlet.publish = wheels.publish
    outlet.send(1.0, 0.5)
    latch.halt("button")
    outlet.send(1.0, 0.5)
    outlet.zero()
    outlet.close()
    outlet.send(0.0, 0.0)
    outlet.zero()
    assert wheels.told == [(1.0, 0.5), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)]


def test_zero_gets_out_though_a_sender_hangs(armed: Path) -> None:
    latch, released, inside = Latch(armed, ROBOT), threading.Event(), threading.Event()
    told: list[float] = []

    def publish(linear: float, angular: float) -> None:
        if linear:
            inside.set()
            released.wait(10.0)
        told.append(linear)

    outlet = Outlet(latch)
    outlet.publish = publish
    sender = threading.Thread(target=outlet.send, args=(1.0, 0.0))
    sender.start()
    inside.wait(10.0)
    latch.halt("button")
    outlet.zero()
    assert told == [0.0]
    released.set()
    sender.join()


def test_an_outlet_that_fails_gives_its_lock_back(armed: Path) -> None:
    def fails(linear: float, angular: float) -> None:
        raise RuntimeError("publisher is gone")

    outlet, wheels = Outlet(Latch(armed, ROBOT)), Wheels()
    outlet.publish = fails
    with pytest.raises(RuntimeError):
        outlet.zero()
    with pytest.raises(RuntimeError):
        outlet.send(1.0, 0.0)
    outlet.publish = wheels.publish
    outlet.send(1.0, 0.0)
    assert wheels.told == [(1.0, 0.0)]


# Exhaustive interleavings: the steps of halt, reset and the gate in every order that keeps each
# one's own order. Whatever the order, once the halt has answered nothing but zero leaves, the
# robot is halted in memory and on disk, and so is its successor.

HALT = ("latch", "zero", "forget")
RESET = ("read", "write", "open")
GATE = ("send", "send", "send")


def interleavings() -> list[tuple[str, ...]]:
    slots = "h" * len(HALT) + "r" * len(RESET) + "g" * len(GATE)
    return sorted(set(itertools.permutations(slots)))


def play(order: tuple[str, ...], home: Path, elsewhere: bool = False) -> None:
    """`elsewhere`: a stand-by hears the halt, the active does not."""
    for name in ("armed", "armed.new"):
        (home / name).unlink(missing_ok=True)
    latch, wheels = Latch(home, ROBOT), Wheels()
    hearing = Latch(home, ROBOT) if elsewhere else latch
    outlet = Outlet(latch)
    outlet.publish = wheels.publish
    steps = {"h": iter(HALT), "r": iter(RESET), "g": iter(GATE)}
    generation, after_zero = -1, None
    for who in order:
        step = next(steps[who])
        if step == "latch":
            hearing.halt("button")
        elif step == "zero":
            outlet.zero()
            after_zero = len(wheels.told)
        elif step == "forget":
            assert hearing.forget_armed() == ""
        elif step == "read":
            generation = latch.generation
        elif step == "write":
            latch.stage("anna")
        elif step == "open":
            try:
                latch.arm("anna", generation)
            except BrainError:
                assert latch.halted
        elif step == "send":
            outlet.send(1.0, 0.0)
    began = [at for at, who in enumerate(order) if who == "r"][1 if elsewhere else 0]
    if began > len(order) - 1 - order[::-1].index("h"):
        return  # the reset began after the halt was over: it may end it
    latch.look()
    assert latch.halted
    assert Latch(home, ROBOT).halted
    if elsewhere:
        return  # the active learns of it at its next tick
    assert after_zero is not None
    assert not any(linear for linear, _ in wheels.told[after_zero:])
    assert Latch(home, ROBOT).halted


def test_every_interleaving_of_halt_reset_and_gate(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halt_module.os, "fsync", lambda descriptor: None)
    orders = interleavings()
    assert len(orders) == 1680
    for order in orders:
        play(order, tmp_path)
        play(order, tmp_path, elsewhere=True)


def test_a_halt_inside_each_step_of_arming_wins(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for call in ("open", "fsync", "replace"):
        latch = Latch(tmp_path, ROBOT)
        real, done = getattr(halt_module.os, call), []

        def halting(*args: Any, real: Any = real, done: Any = done, latch: Any = latch,
                    **kwargs: Any) -> Any:
            if not done:
                done.append(latch.halt("button"))
            return real(*args, **kwargs)

        monkeypatch.setattr(halt_module.os, call, halting)
        with pytest.raises(BrainError, match="halted again"):
            latch.arm("anna", latch.generation)
        monkeypatch.undo()
        assert latch.forget_armed() == ""
        assert latch.halted
        assert Latch(tmp_path, ROBOT).halted


class Desk:
    """A provisioned, halted robot with its reset desk."""

    def __init__(self, root: Path) -> None:
        self.home, self.keys = root / "home", root / "keys"
        for name in ("anna", "ben"):
            provision(self.home, name, self.keys, ["operator"] if name == "anna" else ["engineer"])
        self.operators = load_operators(self.home)
        self.latch = Latch(self.home / "conscience", self.operators.robot)
        self.records: list[tuple[str, dict[str, Any]]] = []
        self.full = False
        self.desk = ResetDesk(self.home, self.latch, self.operators, "epoch-1", self.record)
        self.latch.halt("button")
        self.latch.forget_armed()
        self.desk.challenge()

    def record(self, kind: str, body: dict[str, Any]) -> None:
        if self.full:
            raise BrainError("disk full", ErrorCode.LEDGER_REFUSED)
        self.records.append((kind, body))

    def refused(self, operator: str, token: str, causes: Any = (),
                asked: str = "") -> ErrorCode:
        with pytest.raises(BrainError) as refusal:
            self.desk.reset(operator, token, causes, asked)
        assert self.latch.halted
        assert not (self.home / "conscience" / "armed").exists()
        return refusal.value.code


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_halt_elsewhere_while_the_reset_is_recorded_wins(desk: Desk) -> None:
    """A stand-by hears it, the active does not."""
    stand_by = Latch(desk.home / "conscience", desk.operators.robot)

    def halting(kind: str, body: dict[str, Any]) -> None:
        stand_by.halt("button")
        assert stand_by.forget_armed() == ""

    desk.desk = ResetDesk(desk.home, desk.latch, desk.operators, "epoch-1", halting)
    token = sign(load_key("anna", desk.keys), "reset", desk.operators.robot, desk.desk.challenge())
    assert desk.refused("anna", token) is ErrorCode.CONSCIENCE_HALTED


def test_a_reset_opens_one_halt_once(desk: Desk) -> None:
    token = reset_token(desk.home, "anna", desk.keys)
    desk.desk.reset("anna", token, (), "")
    assert not desk.latch.halted
    assert [kind for kind, _ in desk.records] == ["reset"]
    assert desk.records[0][1]["operator"] == "anna"
    assert desk.records[0][1]["cause"] == "button"
    desk.latch.halt("again")
    desk.latch.forget_armed()
    assert desk.refused("anna", token) == ErrorCode.UNAUTHORISED
    desk.desk.reset("anna", reset_token(desk.home, "anna", desk.keys), (), "")
    assert not desk.latch.halted


def test_a_second_use_without_a_new_halt_is_refused_too(desk: Desk) -> None:
    token = reset_token(desk.home, "anna", desk.keys)
    desk.desk.reset("anna", token, (), "")
    with pytest.raises(BrainError):
        desk.desk.reset("anna", token, (), "")


def test_what_stands_against_a_reset_is_named_and_the_token_stays_good(desk: Desk) -> None:
    token = reset_token(desk.home, "anna", desk.keys)
    assert desk.refused("anna", token, ("scan stale",)) == ErrorCode.CONSCIENCE_CAUSE_NOT_CLEARED
    asked = desk.refused("anna", token, (), "/r1/cmd_vel_raw")
    assert asked == ErrorCode.CONSCIENCE_CAUSE_NOT_CLEARED
    desk.full = True
    assert desk.refused("anna", token) == ErrorCode.LEDGER_REFUSED
    desk.full = False
    desk.desk.reset("anna", token, (), "")
    assert not desk.latch.halted


def test_a_challenge_stays_the_same_until_a_halt_or_a_reset(
        desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    first = desk.desk.challenge()
    written = challenge_file(desk.home).stat().st_mtime_ns
    assert desk.desk.challenge() == first
    assert challenge_file(desk.home).stat().st_mtime_ns == written
    desk.desk.reset("anna", reset_token(desk.home, "anna", desk.keys), (), "")
    second = json.loads(challenge_file(desk.home).read_text())
    assert second["nonce"] != first["nonce"]
    assert desk.desk.challenge() == second
    desk.latch.halt("again")
    assert desk.desk.challenge() not in (first, second)


def test_nobody_else_resets(desk: Desk) -> None:
    anna, ben = load_key("anna", desk.keys), load_key("ben", desk.keys)
    challenge = desk.desk.challenge()
    robot = desk.operators.robot
    forged = [
        ("anna", ""), ("anna", "AAAA"), ("anna", "not base64 !"), ("carl", "AAAA"), ("", ""),
        ("ben", sign(ben, "reset", robot, challenge)),
        ("anna", sign(ben, "reset", robot, challenge)),
        ("anna", sign(anna, "reset", "another robot", challenge)),
        ("anna", sign(anna, "reset", robot, {**challenge, "epoch": "epoch-0"})),
        ("anna", sign(anna, "reset", robot, {**challenge, "nonce": "guessed"})),
        ("anna", sign(anna, "approve", robot, challenge)),
    ]
    for operator, token in forged:
        assert desk.refused(operator, token) == ErrorCode.UNAUTHORISED
    assert not desk.records


def test_a_token_of_an_earlier_activation_is_refused(desk: Desk) -> None:
    token = reset_token(desk.home, "anna", desk.keys)
    desk.desk = ResetDesk(desk.home, desk.latch, desk.operators, "epoch-2", desk.record)
    assert desk.refused("anna", token) == ErrorCode.UNAUTHORISED


def test_a_challenge_the_disk_refuses_is_written_later(desk: Desk) -> None:
    file = challenge_file(desk.home)
    file.unlink()
    file.mkdir()
    desk.latch.halt("again")
    first = desk.desk.challenge()
    file.rmdir()
    assert desk.desk.challenge() == first
    assert json.loads(file.read_text()) == first
