"""The rules file: what loads, what is refused and how it is said; what is authorised."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from brainos_ros.conscience import adopted, rules, rules_file, table
from brainos_ros.conscience.rules import Level
from brainos_ros.conscience.rules_file import parse
from brainos_ros.errors import BrainError, ErrorCode

GOOD: dict[str, Any] = {
    "format": "brainos-rules/1",
    "inputs": {"speed": {"type": "double", "min": 0, "max": 9}, "who": {"type": "strings"},
               "n": {"type": "int"}, "on": {"type": "bool"}, "d": {"type": "doubles"}},
    "rules": [{"id": "a.b", "level": "LOW", "actions": ["go"], "inputs": ["speed"],
               "when": "speed < 1.0", "reason": "Slow."}]}


def changed(**rule: Any) -> bytes:
    body = {**GOOD, "rules": [{**GOOD["rules"][0], **rule}]}
    return yaml.safe_dump(body).encode()


def refused(source: bytes) -> str:
    with pytest.raises(BrainError) as refusal:
        parse(source)
    assert refusal.value.code == ErrorCode.CONSCIENCE_RULES_INVALID
    return str(refusal.value)


def test_a_good_file_loads_and_its_version_is_its_hash() -> None:
    loaded = parse(changed())
    assert loaded.evaluate("go", {"speed": 0.5}).level is Level.LOW
    assert len(loaded.version) == 64
    assert parse(changed(reason="Other.")).version != loaded.version


@pytest.mark.parametrize(("change", "says"), [
    ({"id": "A"}, "rule id"), ({"id": None}, "rule id"), ({"id": "a..b"}, "rule id"),
    ({"level": "low"}, "level"), ({"level": 0}, "level"), ({"level": None}, "level"),
    ({"actions": []}, "actions"), ({"actions": "go"}, "actions"), ({"actions": [""]}, "actions"),
    ({"actions": ["*"]}, "not `*`"), ({"actions": ["go", "**?"]}, "not `*`"),
    ({"inputs": ["nope"]}, "not declared"), ({"inputs": "speed"}, "inputs"),
    ({"when": ""}, "CEL expression"), ({"when": True}, "CEL expression"),
    ({"when": "speed <"}, "rule a.b"), ({"when": "spead < 1.0"}, "spead"),
    ({"when": "speed"}, "true or false"), ({"when": "speed + 1.0"}, "true or false"),
    ({"when": "speed < 'x'"}, "fails"), ({"when": "speed.nope"}, "fails"),
    ({"when": "nope(speed)"}, "fails"), ({"when": "speed > 4.0 || speed < 'x'"}, "fails"),
    ({"when": "1 / 0 > 1 && speed > 1.0"}, "fails"), ({"when": "on"}, "not among its inputs"),
    ({"when": "[1].all(x, y > 1)"}, "not among its inputs"),
    ({"reason": ""}, "reason"), ({"reason": 3}, "reason"), ({"extra_inputs": "yes"}, "extra"),
    ({"exec": "rm"}, "unknown field exec")])
def test_a_rule_that_is_wrong_is_refused_and_named(change: dict[str, Any], says: str) -> None:
    assert says in refused(changed(**change))


@pytest.mark.parametrize(("when", "inputs"), [
    ("who.exists(w, w == 'x') && !on", ["who", "on"]), ("n in [1, 2] || n > 5", ["n"]),
    ("d.all(e, e < 1.0)", ["d"]), ("size(who) > 2", ["who"]), ("true", [])])
def test_cel_as_people_write_it_loads(when: str, inputs: list[str]) -> None:
    parse(changed(when=when, inputs=inputs))


def test_many_inputs_are_checked_by_sample() -> None:
    names = [f"i{n}" for n in range(12)]
    body = {**GOOD, "inputs": {name: {"type": "int", "min": 0, "max": 9} for name in names}}
    one = {**GOOD["rules"][0], "inputs": names, "when": " + ".join(names) + " > 3"}
    parse(yaml.safe_dump({**body, "rules": [one]}).encode())
    one["when"] = " + ".join(names)
    refused(yaml.safe_dump({**body, "rules": [one]}).encode())


@pytest.mark.parametrize(("source", "says"), [
    (b"", "mapping"), (b"[]", "mapping"), (b"{", "not YAML"), (b"\xff\xfe\x00", "YAML"),
    (b"a: 1", "unknown field a"), (b"format: brainos-rules/2", "format must be"),
    (b"{1: 2}", "mapping"), (b"!!python/object/apply:os.system ['true']", "not YAML"),
    (b"format: brainos-rules/1\nrules: []", "at least one"),
    (b"format: brainos-rules/1\nrules: {a: 1}", "at least one"),
    (b"format: brainos-rules/1\nrules: [3]", "a rule must be a mapping"),
    (b"format: brainos-rules/1\ninputs: [a]\nrules: [{}]", "inputs must be a mapping"),
    (yaml.safe_dump({**GOOD, "rules": GOOD["rules"] * 2}).encode(), "used twice")])
def test_a_file_that_is_wrong_is_refused(source: bytes, says: str) -> None:
    assert says in refused(source)


@pytest.mark.parametrize(("body", "says"), [
    ({"type": "float"}, "type must be"), ({}, "type must be"),
    ({"type": "int", "min": "a"}, "min"), ({"type": "int", "min": 2, "max": 1}, "above max"),
    ({"type": "double", "max": True}, "numbers"),
    ({"type": "double", "min": float("nan")}, "above max"), ({"type": "string", "values": "a"},
     "values"), ({"type": "bool", "default": True}, "unknown field default")])
def test_an_input_that_is_wrong_is_refused(body: dict[str, Any], says: str) -> None:
    assert says in refused(yaml.safe_dump({**GOOD, "inputs": {"speed": body}}).encode())


def test_an_input_has_a_plain_name() -> None:
    assert "lower case" in refused(
        yaml.safe_dump({**GOOD, "inputs": {"Speed": {"type": "bool"}}}).encode())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BrainError, match="no-file"):
        rules_file.load(tmp_path / "no-file.yaml")


def test_rules_that_take_too_long_deny(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = parse(changed())
    times = iter([0.0, rules.TIME_LIMIT_S + 0.001])
    monkeypatch.setattr(rules.time, "monotonic", lambda: next(times))
    verdict = loaded.evaluate("go", {"speed": 0.5})
    assert (verdict.level, verdict.approved) == (Level.CRITICAL, False)
    assert "too long" in verdict.reason


@pytest.mark.parametrize(("when", "broken"), [
    ("100 / n > 1", 0), ("who[0] == 'x'", []), ("who.all(w, w < 'x') && who[9] == 'y'", [])])
def test_a_rule_that_fails_denies_and_is_named(
        monkeypatch: pytest.MonkeyPatch, when: str, broken: Any) -> None:
    """Samples at load do not find everything: then it is found in time."""
    monkeypatch.setattr(rules.Input, "samples", lambda self: [["x"] * 10] if (
        self.type == "strings") else [1])
    name = "n" if broken == 0 else "who"
    loaded = parse(changed(when=when, inputs=[name]))
    verdict = loaded.evaluate("go", {name: broken})
    assert verdict.level is Level.CRITICAL
    assert "Rule a.b failed" in verdict.reason
    assert verdict.rules == ("a.b",)


def test_a_rule_with_a_comment_stands_beside_others() -> None:
    two = [{**GOOD["rules"][0], "when": "speed < 1.0 // slow"},
           {**GOOD["rules"][0], "id": "b", "level": "HIGH", "when": "speed > 0.5"}]
    loaded = parse(yaml.safe_dump({**GOOD, "rules": two}).encode())
    assert loaded.evaluate("go", {"speed": 0.2}).rules == ("a.b",)
    assert loaded.evaluate("go", {"speed": 0.8}).rules == ("a.b", "b")


def test_a_context_that_is_no_mapping_denies() -> None:
    verdict = parse(changed()).evaluate("go", None)  # type: ignore[arg-type]
    assert verdict.level is Level.CRITICAL


def test_many_names_do_not_fill_the_memory() -> None:
    loaded = parse(changed(actions=["go*"]))
    for number in range(3000):
        loaded.evaluate(f"go{number}", {"speed": 0.5})
    assert len(loaded._plans) <= 1024


def test_what_is_authorised_stays_in_force(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_bytes(changed())
    first, remark = adopted.in_force(tmp_path, file)
    assert not remark
    assert adopted.in_force(tmp_path, file)[0].version == first.version
    file.write_bytes(changed(reason="Edited."))
    still, remark = adopted.in_force(tmp_path, file)
    assert still.version == first.version
    assert "not what was authorised" in remark
    adopted.keep(tmp_path, parse(file.read_bytes()))
    assert adopted.in_force(tmp_path, file) != (first, "")
    assert adopted.in_force(tmp_path, file)[1] == ""
    file.write_bytes(b"{")
    with pytest.raises(BrainError):
        adopted.in_force(tmp_path, file)


def test_the_shipped_rules_are_found() -> None:
    shipped = rules_file.load(adopted.rules_file(""))
    assert len(shipped.rules) >= 25
    assert adopted.rules_file("/x/y.yaml") == Path("/x/y.yaml")


def test_the_table_in_the_docs_is_that_of_the_shipped_rules() -> None:
    shipped = rules_file.load(adopted.rules_file(""))
    docs = Path(__file__).parents[3] / "docs/conscience-rules.md"
    assert table.markdown(shipped) in docs.read_text()
    for rule in shipped.rules:
        assert f"`{rule.id}`" in docs.read_text()
