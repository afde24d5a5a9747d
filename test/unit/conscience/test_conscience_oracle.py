"""Random proposals under random rules against an oracle that shares nothing with the node.

Rules are made as trees here, rendered to YAML and CEL for the conscience, and judged from the
trees by the oracle. BRAINOS_PROPOSALS sets the count (`make soak`: 1,000,000).
"""

import json
import math
import os
import random
from typing import Any, NamedTuple

from brainos_ros.conscience.approvals import Approvals
from brainos_ros.conscience.circuit import Circuit
from brainos_ros.conscience.credentials import Operators
from brainos_ros.conscience.names import Names
from brainos_ros.conscience.rules_file import parse

PROPOSALS = int(os.environ.get("BRAINOS_PROPOSALS", "20000"))
PER_RULE_SET = 500
LEVELS = ["LOW", "MEDIUM", "HIGH", "CRITICAL"]
ACTIONS = ["go", "go_to", "go_back", "arm/move", "arm/rest", "cmd_vel", "say", "Dock", "a.b-c"]
PATTERNS = [*ACTIONS, "go*", "arm/*", "s*", "cmd*"]
WORDS = ["", "human", "x", "keep_out", "ä", "true", "1.0"]
Dice = random.Random


class Spec(NamedTuple):
    kind: str
    low: float
    high: float
    values: list[str]


class TreeRule(NamedTuple):
    level: int
    patterns: list[str]
    inputs: list[str]
    tree: Any
    extra_ignored: bool


def make_inputs(dice: Dice) -> dict[str, Spec]:
    specs = {}
    for number in range(dice.randint(1, 5)):
        kind = dice.choice(["bool", "int", "double", "string", "strings", "doubles"])
        low = float(dice.randint(-5, 0))
        values = dice.sample(WORDS, 3) if kind == "string" and dice.random() < 0.5 else []
        specs[f"v{number}"] = Spec(kind, low, low + dice.randint(1, 10), values)
    return specs


def make_tree(dice: Dice, specs: dict[str, Spec], depth: int = 0) -> Any:
    roll = dice.random()
    if depth < 3 and roll < 0.45:
        kind = dice.choice(["and", "or", "not"])
        parts = [make_tree(dice, specs, depth + 1) for _ in range(1 if kind == "not" else 2)]
        return (kind, *parts)
    if roll < 0.5 or not specs:
        return ("const", dice.random() < 0.7)
    name = dice.choice(list(specs))
    kind = specs[name].kind
    if kind == "bool":
        return ("is", name)
    if kind == "int":
        return ("cmp", name, dice.choice(["<", "<=", ">", ">=", "==", "!="]), dice.randint(-5, 8))
    if kind == "double":
        return ("cmp", name, dice.choice(["<", "<=", ">", ">="]), dice.randint(-10, 16) / 2)
    if kind == "string":
        return ("among", name, dice.sample(WORDS, 2))
    if kind == "strings":
        return ("holds", name, dice.choice(WORDS))
    return ("all_below", name, dice.randint(-10, 16) / 2)


def names_in(tree: Any) -> set[str]:
    if tree[0] in ("and", "or", "not"):
        return set().union(*map(names_in, tree[1:]))
    return set() if tree[0] == "const" else {tree[1]}


def to_cel(tree: Any) -> str:
    kind = tree[0]
    if kind in ("and", "or"):
        return f"({to_cel(tree[1])} {'&&' if kind == 'and' else '||'} {to_cel(tree[2])})"
    if kind == "not":
        return f"!({to_cel(tree[1])})"
    if kind == "const":
        return "true" if tree[1] else "false"
    if kind == "is":
        return str(tree[1])
    if kind == "cmp":
        return f"{tree[1]} {tree[2]} {tree[3]!r}"
    if kind == "among":
        return f"{tree[1]} in {json.dumps(tree[2], ensure_ascii=False)}"
    if kind == "holds":
        return f"{json.dumps(tree[2], ensure_ascii=False)} in {tree[1]}"
    return f"{tree[1]}.all(each, each < {tree[2]!r})"


def holds(tree: Any, values: dict[str, Any]) -> bool:
    kind = tree[0]
    if kind == "and":
        return holds(tree[1], values) and holds(tree[2], values)
    if kind == "or":
        return holds(tree[1], values) or holds(tree[2], values)
    if kind == "not":
        return not holds(tree[1], values)
    if kind == "const":
        return bool(tree[1])
    value = values[tree[1]]
    if kind == "is":
        return bool(value)
    if kind == "cmp":
        return {"<": value < tree[3], "<=": value <= tree[3], ">": value > tree[3],
                ">=": value >= tree[3], "==": value == tree[3],
                "!=": value != tree[3]}[tree[2]]
    if kind == "among":
        return value in tree[2]
    if kind == "holds":
        return tree[2] in value
    return all(each < tree[2] for each in value)


def make_rules(dice: Dice, specs: dict[str, Spec]) -> list[TreeRule]:
    rules = []
    for _ in range(dice.randint(1, 8)):
        tree = make_tree(dice, specs)
        inputs = names_in(tree) | {name for name in specs if dice.random() < 0.15}
        rules.append(TreeRule(dice.choice([0, 0, 1, 1, 2, 3]),
                              dice.sample(PATTERNS, dice.randint(1, 3)), sorted(inputs), tree,
                              dice.random() < 0.15))
    return rules


def to_yaml(specs: dict[str, Spec], rules: list[TreeRule]) -> bytes:
    inputs: dict[str, Any] = {}
    for name, spec in specs.items():
        inputs[name] = {"type": spec.kind}
        if spec.kind in ("int", "double", "doubles"):
            inputs[name] |= {"min": spec.low, "max": spec.high}
        if spec.values:
            inputs[name]["values"] = spec.values
    body = {"format": "brainos-rules/1", "inputs": inputs, "rules": [
        {"id": f"r{number}", "level": LEVELS[rule.level], "actions": rule.patterns,
         "inputs": rule.inputs, "when": to_cel(rule.tree), "reason": f"Reason {number}.",
         "extra_inputs": "ignored" if rule.extra_ignored else "refused"}
        for number, rule in enumerate(rules)]}
    return json.dumps(body, ensure_ascii=False).encode()  # JSON is YAML


def good_value(dice: Dice, spec: Spec) -> Any:
    if spec.kind == "bool":
        return dice.random() < 0.5
    if spec.kind == "int":
        return dice.randint(int(spec.low), int(spec.high))
    if spec.kind == "double":
        value = dice.randint(int(spec.low) * 2, int(spec.high) * 2) / 2
        return int(value) if value.is_integer() and dice.random() < 0.3 else value
    if spec.kind == "string":
        return dice.choice(spec.values or WORDS)
    if spec.kind == "strings":
        return dice.sample(spec.values or WORDS, dice.randint(0, 3))
    return [dice.uniform(spec.low, spec.high) for _ in range(dice.randint(0, 3))]


BAD = [math.nan, math.inf, -math.inf, None, "", "nan", "1e9", 10**30, -(10**30), 1e300, True, [],
       [math.nan], [[1.0]], ["human", 1], {"a": 1}, b"x", "x" * 5000, ["y"] * 300, 2**63, "true",
       0, -0.0, 1, "human", [True], (1.0, 2.0)]


def fits(spec: Spec, value: Any) -> bool:
    """What a safety engineer would call a valid value, written without the node's words."""
    number = type(value) in (int, float)
    if spec.kind == "bool":
        return type(value) is bool
    if spec.kind == "int":
        return type(value) is int and spec.low <= value <= spec.high
    if spec.kind == "double":
        return number and not math.isnan(value) and spec.low <= value <= spec.high
    if spec.kind == "string":
        return type(value) is str and len(value) <= 4096 and (
            not spec.values or value in spec.values)
    if type(value) not in (list, tuple) or len(value) > 256:
        return False
    inner = Spec(spec.kind[:-1], spec.low, spec.high, spec.values)
    return all(fits(inner, each) for each in value)


def harmless(value: Any) -> bool:
    if type(value) in (list, tuple):
        return len(value) <= 256 and all(
            type(each) not in (list, tuple) and harmless(each) for each in value)
    if type(value) is float:
        return math.isfinite(value)
    return type(value) in (bool, int) or (type(value) is str and len(value) <= 4096)


def oracle(specs: dict[str, Spec], rules: list[TreeRule], action: str | None,
           context: dict[str, Any], held: bool) -> int:
    if held or action is None:
        return 3

    def speaks(rule: TreeRule) -> bool:
        return any(action.startswith(p[:-1]) if p[-1] == "*" else action == p
                   for p in rule.patterns)

    about = [rule for rule in rules if speaks(rule)]
    needed = {name for rule in about for name in rule.inputs}
    extra = set(context) - needed
    if not about or needed - set(context):
        return 3
    if extra and not any(rule.extra_ignored for rule in about):
        return 3
    if not all(harmless(context[name]) for name in extra):
        return 3
    if not all(fits(specs[name], context[name]) for name in needed):
        return 3
    return max((rule.level for rule in about if holds(rule.tree, context)), default=3)


def make_action(dice: Dice) -> tuple[str, str | None]:
    """(as it is spelt, the name it means or None if it means nothing)"""
    roll = dice.random()
    if roll < 0.1:
        name = dice.choice(["", "/", "go to", "gо", "go\n", "~/go", "go//\x00", "a" * 300, "9go",
                            "../go", "go;rm", "{go}", "//", "go$", "cmd_vel\u200b"])
        return name, None
    if roll < 0.2:
        return dice.choice([("GO", "GO"), ("goto", "goto"), ("r2/go", "r2/go"),
                            ("/r2/cmd_vel", "r2/cmd_vel"), ("dock", "dock")])
    if roll < 0.3:
        return dice.choice(["/cmd_vel", "cmd_vel/", "//cmd_vel", "/r1/cmd_vel", "wheels",
                            "/r1/wheels", "/r1//wheels/", "raw/in", "/r1/cmd_vel/"]), "cmd_vel"
    name = dice.choice(ACTIONS)
    return dice.choice([name, name, f"/{name}", f"{name}/", f"/r1/{name}", f"/r1/{name}//"]), name


def make_context(dice: Dice, specs: dict[str, Spec], rules: list[TreeRule],
                 action: str | None) -> dict[str, Any]:
    wanted = {name for rule in rules for name in rule.inputs} if dice.random() < 0.2 else {
        name for rule in rules for name in rule.inputs if action is not None and any(
            action.startswith(p[:-1]) if p[-1] == "*" else action == p for p in rule.patterns)}
    context = {name: good_value(dice, specs[name]) for name in sorted(wanted)}
    roll = dice.random()
    if roll < 0.12 and context:
        context[dice.choice(sorted(context))] = dice.choice(BAD)
    elif roll < 0.16 and context:
        del context[dice.choice(sorted(context))]
    elif roll < 0.24:
        context[dice.choice(["zz", "V0", "true", ""])] = dice.choice([*BAD, 1.0, "ok", 3])
    return context


def test_random_proposals_get_the_oracles_verdict() -> None:
    dice = Dice(int(os.environ.get("BRAINOS_SEED", "1")))
    seen = dict.fromkeys(range(4), 0)
    for _ in range(math.ceil(PROPOSALS / PER_RULE_SET)):
        specs = make_inputs(dice)
        rules = make_rules(dice, specs)
        state = {"hold": "", "full": False}
        records: list[tuple[str, dict[str, Any]]] = []

        def record(kind: str, body: dict[str, Any], state: Any = state,
                   records: Any = records) -> None:
            if state["full"]:
                raise OSError("disk full")
            records.append((kind, body))

        operators = Operators("robot", {})
        circuit = Circuit(
            parse(to_yaml(specs, rules)), operators, Approvals(operators, "epoch", 1e9, record),
            Names("/r1", ("/r1/wheels", "/r1/raw/in")), record,
            lambda state=state: state["hold"], "epoch")
        for _ in range(PER_RULE_SET):
            spelt, action = make_action(dice)
            context = make_context(dice, specs, rules, action)
            state["hold"] = "halted: a test" if dice.random() < 0.02 else ""
            state["full"] = dice.random() < 0.02
            records.clear()
            answer = circuit.evaluate(spelt, context, "pfc")
            expected = oracle(specs, rules, action, context, bool(state["hold"]))
            if state["full"]:
                assert answer.level == 3
                assert not answer.approved
                continue
            too_many = expected == 2 and "No approval can be asked for" in answer.reason
            assert answer.level == (3 if too_many else expected), (spelt, context, answer)
            assert answer.approved is (expected <= 1)
            if answer.approved:
                assert records[-1][1]["evaluation_id"] == answer.id
            assert (answer.approval is not None) is (expected == 2 and not too_many)
            seen[expected] += 1
    assert all(seen.values())
