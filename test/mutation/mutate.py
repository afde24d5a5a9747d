"""Mutation testing: change one thing in a module, and see whether its tests notice.

    python test/mutation/mutate.py brainos_ros/conscience/halt.py \\
        test/unit/conscience/test_conscience_halt.py

Each mutant is loaded in a forked process of its own, nothing on disk is changed. Prints those that
survived, as line, was and became, then the share killed. Messages are not mutated.
"""

import ast
import contextlib
import copy
import importlib.abc
import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TIME_LIMIT_S = 60
SWAPS: dict[type[ast.AST], list[type[ast.AST]]] = {
    ast.Lt: [ast.LtE, ast.Gt], ast.LtE: [ast.Lt, ast.Gt], ast.Gt: [ast.GtE, ast.Lt],
    ast.GtE: [ast.Gt, ast.Lt], ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq], ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is], ast.In: [ast.NotIn], ast.NotIn: [ast.In], ast.And: [ast.Or],
    ast.Or: [ast.And], ast.Add: [ast.Sub], ast.Sub: [ast.Add], ast.Mult: [ast.Div],
    ast.Div: [ast.Mult], ast.BitOr: [ast.BitAnd],
}


def variants(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """(field, new value) for each way to change one thing in a node."""
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            for swap in SWAPS.get(type(operator), []):
                yield "ops", [*node.ops[:index], swap(), *node.ops[index + 1:]]
    elif isinstance(node, ast.BoolOp | ast.BinOp | ast.AugAssign):
        for swap in SWAPS.get(type(node.op), []):
            yield "op", swap()
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield "value", not node.value
        elif isinstance(node.value, int | float):
            yield "value", node.value + 1
    elif isinstance(node, ast.If | ast.While | ast.IfExp):
        yield "test", ast.UnaryOp(ast.Not(), node.test)
    elif isinstance(node, ast.Return) and node.value is not None and not (
            isinstance(node.value, ast.Constant) and node.value.value is None):
        yield "value", ast.Constant(None)
    for name in ("body", "orelse", "finalbody"):
        block = getattr(node, name, None)
        if not isinstance(block, list):
            continue
        for index, statement in enumerate(block):
            if isinstance(statement, ast.Assign | ast.AugAssign | ast.Raise | ast.Expr) and not (
                    isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
                yield name, [*block[:index], ast.Pass(), *block[index + 1:]]


def mutants(source: str) -> Iterator[tuple[int, str, str, ast.Module]]:
    """(line, was, became, tree) of every mutant of the functions in a module."""
    tree = ast.parse(source)
    inside = {child for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
              for statement in node.body for child in ast.walk(statement)}
    inside |= {node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    inside -= {child for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)
               for child in ast.walk(node.annotation)}
    for number, node in enumerate(ast.walk(tree)):
        if node not in inside:
            continue
        for field, value in variants(node):
            changed = copy.deepcopy(tree)
            twin = next(each for n, each in enumerate(ast.walk(changed)) if n == number)
            was = ast.unparse(twin) if hasattr(twin, "lineno") else ""
            setattr(twin, field, value)
            became = ast.unparse(ast.fix_missing_locations(twin))
            yield getattr(node, "lineno", 0), *_difference(was, became), changed


def _difference(was: str, became: str) -> tuple[str, str]:
    old, new = was.splitlines(), became.splitlines()
    for left, right in zip(old, new, strict=False):
        if left != right:
            return left.strip(), right.strip()
    return old[-1].strip(), (new[-1] if new else "").strip()


class Loader(importlib.abc.Loader, importlib.abc.MetaPathFinder):
    """Gives out a changed module under the name of the real one."""

    def __init__(self, name: str, tree: ast.Module, path: str) -> None:
        self._name, self._tree, self._path = name, tree, path

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        return importlib.util.spec_from_loader(name, self) if name == self._name else None

    def exec_module(self, module: Any) -> None:
        module.__file__ = self._path
        exec(compile(ast.fix_missing_locations(self._tree), self._path, "exec"), module.__dict__)


def killed(name: str, path: str, tree: ast.Module, tests: list[str]) -> bool:
    """Whether the tests fail, or hang, with this tree for the module."""
    child = os.fork()
    if child == 0:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        signal.alarm(TIME_LIMIT_S)
        room = name.rpartition(".")[0]
        for loaded in [each for each in sys.modules if each.startswith(room)]:
            del sys.modules[loaded]
        sys.meta_path.insert(0, Loader(name, tree, path))
        code = 1
        with contextlib.suppress(BaseException):
            code = int(pytest.main(
                ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::DeprecationWarning", *tests]))
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0


def main(module: str, *tests: str) -> int:
    sys.path.insert(0, str(ROOT))
    path = ROOT / module
    name = module.removesuffix(".py").replace("/", ".")
    source = path.read_text()
    importlib.import_module(name)
    if killed(name, str(path), ast.parse(source), list(tests)):
        print("the tests fail without any change")
        return 2
    count = dead = 0
    for line, was, became, tree in mutants(source):
        count += 1
        if killed(name, str(path), tree, list(tests)):
            dead += 1
        else:
            print(f"{module}:{line}: {was}  ->  {became}", flush=True)
        if count % 25 == 0:
            print(f"{dead} of {count} so far", file=sys.stderr, flush=True)
    print(f"{module}: {dead} of {count} killed, {100 * dead / count:.1f} %")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
