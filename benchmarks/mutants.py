"""Would the tests notice? Small mistakes are made in a module, one at a time, and its tests run.

A mistake (a mutant) changes one place: a comparison, a sign, a number, a default, a minimum into a
maximum, a `not`, a return value, a statement left out. It is killed if a test fails, or if the
tests take three times as long as without it and 5 s more. What survives is either a gap in the
tests or changes nothing that anybody could see: `mutants_explained.json` says which, for each.

The tests are collected once. Each mutant lives in a forked process, where the functions get the
code of the mutated source in place, so that nothing is imported again; signatures are not checked.
Tests that killed before run first, then the quick ones. Docstrings, annotations, decorators and
the texts of errors stay as they are. Needs a system that can fork.

    python benchmarks/mutants.py [--only losses] [--sample 200]
"""

import argparse
import ast
import gc
import hashlib
import inspect
import json
import math
import os
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import jaxtyping
import pytest
from hypothesis import Phase, settings
from timing import write_record

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
EXPLAINED = HERE / "mutants_explained.json"
RECORD = ROOT / "book/results/mutants.json"
TESTS = {
    "losses": ["test_losses.py", "test_blockwise.py"],
    "metrics": ["test_metrics.py"],
    "statistics": ["test_statistics.py"],
}
# A test that takes more CPU seconds than this, or starts processes, is left out: the share of the
# whole suite can only be larger.
SLOW = 0.5
LATE = "took too long"  # or died of a limit on its memory
SEED = 0

BOUNDARY = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
OPPOSITE = {
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
PAIRS = [
    ("min", "max"),
    ("amin", "amax"),
    ("argmin", "argmax"),
    ("minimum", "maximum"),
    ("any", "all"),
    ("new_zeros", "new_ones"),
    ("zeros", "ones"),
    ("sin", "cos"),
    ("sum", "mean"),
    ("sf", "cdf"),
    ("isf", "ppf"),
]
NAMES = {a: b for one, other in PAIRS for a, b in ((one, other), (other, one))}


class Spot:
    """A place in a tree that can be changed and put back."""

    def __init__(self, kind: str, holder: ast.AST, field: str, new: object, index: int | None):
        self.kind, self.holder, self.field, self.new, self.index = kind, holder, field, new, index

    def swap(self) -> None:
        where = getattr(self.holder, self.field)
        if self.index is None:
            setattr(self.holder, self.field, self.new)
            self.new = where
        else:
            where[self.index], self.new = self.new, where[self.index]


def mutants(source: str) -> list[dict[str, object]]:
    """Every mutant of a module: line, function, kind, change (unique), and the mutated source."""
    tree = ast.parse(source)
    found, seen = [], Counter()
    for line, function, shown, spot in _spots(tree):
        before = ast.unparse(shown)
        spot.swap()
        after, mutated = ast.unparse(shown) or "nothing", ast.unparse(tree)
        spot.swap()
        change = f"{function}: {before} -> {after}"
        seen[change] += 1
        if seen[change] > 1:
            change += f" ({seen[change]})"
        found.append({"line": line, "kind": spot.kind, "change": change, "source": mutated})
    return found


def _spots(tree: ast.Module) -> Iterator[tuple[int, str, ast.AST, Spot]]:
    """Line, function, the piece of code to show, and the place."""

    def walk(node: ast.AST, function: str, shown: ast.AST) -> Iterator:
        if isinstance(node, ast.FunctionDef):
            function = node.name
            named = [*node.args.posonlyargs, *node.args.args]
            named = [*named[len(named) - len(node.args.defaults) :], *node.args.kwonlyargs]
            defaults = [*node.args.defaults, *node.args.kw_defaults]
            for argument, default in zip(named, defaults, strict=True):
                if default is not None:
                    yield from walk(default, function, ast.keyword(argument.arg, default))
            yield from body(node, "body", function)
            return
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.JoinedStr)):
            return
        for kind, field, new, index in _changes(node):
            yield node.lineno, function, shown, Spot(kind, node, field, new, index)
        for field, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                yield from body(node, field, function)
            elif field in ("annotation", "returns", "decorator_list", "handlers"):
                continue
            else:
                for child in value if isinstance(value, list) else [value]:
                    if isinstance(child, ast.AST):
                        yield from walk(child, function, shown)

    def body(holder: ast.AST, field: str, function: str) -> Iterator:
        for i, statement in enumerate(getattr(holder, field)):
            constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            if constant:  # a docstring
                continue
            head = _head(statement)
            removable = isinstance(statement, (ast.Raise, ast.Expr, ast.AugAssign))
            if isinstance(statement, ast.Assign):
                removable = not isinstance(statement.targets[0], (ast.Name, ast.Tuple))
            if removable:
                spot = Spot("statement left out", holder, field, ast.Pass(), i)
                short = ast.Module([statement], [])
                yield statement.lineno, function, _Slot(short, spot), spot
            if not isinstance(statement, ast.Raise):
                yield from walk(statement, function, head)

    yield from body(tree, "body", "module")


class _Slot(ast.Module):
    """Shows a statement that a spot takes away."""

    def __init__(self, held: ast.Module, spot: Spot):
        super().__init__(held.body, [])
        self.spot = spot
        statement = held.body[0]
        original, spot_swap = spot.swap, self

        def swap() -> None:
            original()
            spot_swap.body = [] if spot_swap.body else [statement]

        spot.swap = swap


def _head(statement: ast.stmt) -> ast.AST:
    """What is shown of a change within: the statement, or the condition it begins with."""
    for field in ("test", "iter"):
        if hasattr(statement, field) and not isinstance(statement, ast.Assert):
            return getattr(statement, field)
    return statement


def _changes(node: ast.AST) -> Iterator[tuple[str, str, object, int | None]]:
    """Kind, field, its new value, and where in a list."""
    match node:
        case ast.Compare():
            for i, op in enumerate(node.ops):
                for kind, table in (("boundary", BOUNDARY), ("comparison", OPPOSITE)):
                    if type(op) in table:
                        yield kind, "ops", table[type(op)](), i
        case ast.BinOp() | ast.AugAssign() if type(node.op) in ARITHMETIC:
            yield "arithmetic", "op", ARITHMETIC[type(node.op)](), None
        case ast.BoolOp():
            yield "and, or", "op", ast.Or() if isinstance(node.op, ast.And) else ast.And(), None
        case ast.UnaryOp():
            yield "sign or not", "op", ast.UAdd(), None
        case ast.Constant(value=bool()):
            yield "constant", "value", not node.value, None
        case ast.Constant(value=int() | float()):
            yield "constant", "value", node.value + 1, None
            if node.value == 1:
                yield "constant", "value", 0, None
        case ast.Constant(value=str()):
            yield "constant", "value", node.value + "?", None
        case ast.Name() if node.id in NAMES:
            yield "name", "id", NAMES[node.id], None
        case ast.Attribute() if node.attr in NAMES:
            yield "name", "attr", NAMES[node.attr], None
        case ast.IfExp():
            yield "condition", "test", ast.UnaryOp(ast.Not(), node.test), None
        case ast.Slice(lower=None, upper=None):
            return
        case ast.Slice():
            for end in ("lower", "upper"):
                if isinstance(value := getattr(node, end), ast.Name):
                    yield "slice", end, ast.BinOp(value, ast.Add(), ast.Constant(1)), None
        case ast.Return() if node.value is not None:
            yield "return value", "value", ast.Constant(None), None


def codes(code: CodeType) -> Iterator[CodeType]:
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield inner
            yield from codes(inner)


def functions(module: ModuleType) -> list[FunctionType]:
    """Every function made from the source of a module, inside decorators too."""
    alive = [f for f in gc.get_objects() if type(f) is FunctionType]
    return [f for f in alive if f.__code__.co_filename == module.__file__]


def install(module: ModuleType, source: str) -> None:
    """Give the functions and constants of a loaded module those of another source, in place."""
    held = functions(module)
    compiled = compile(source, module.__file__, "exec")
    new = {code.co_qualname: code for code in codes(compiled)}
    fresh = dict(vars(module))
    exec(compiled, fresh)  # our own source, for its defaults and constants
    for name, value in list(vars(module).items()):
        if isinstance(value, (int, float, str, tuple)) and not name.startswith("__"):
            setattr(module, name, fresh[name])
    for function in held:
        name = function.__code__.co_qualname
        function.__code__ = new[name]
        if name in fresh:  # not one within another
            wanted = inspect.unwrap(fresh[name])
            function.__defaults__ = wanted.__defaults__
            function.__kwdefaults__ = wanted.__kwdefaults__


class Trial:
    """A pytest plugin: after collection, one forked process for each mutant."""

    def __init__(self, names: list[str], sample: int | None, progress: Path, out: Path):
        self.names, self.sample, self.progress, self.out = names, sample, progress, out

    def pytest_collection(self, session) -> None:
        """Drawn examples are the same each time, and a failing one need not be made simpler."""
        once = [Phase.explicit, Phase.generate]
        settings.register_profile("mutants", derandomize=True, deadline=None, phases=once)
        settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, items: list) -> None:
        """Of the sizes of a tile one will do: they concern `blockwise`."""
        items[:] = [
            item
            for item in items
            if not hasattr(item, "callspec") or item.callspec.params.get("tile", 100) == 100
        ]

    def pytest_runtestloop(self, session) -> bool:
        for name in self.names:
            found = self.module(name, [i for i in session.items if i.path.name in TESTS[name]])
            record = json.loads(self.out.read_text()) if self.out.exists() else {}
            modules = {**record.get("modules", {}), name: found}
            write_record(self.out, {"seed": SEED, "slow_seconds": SLOW, "modules": modules})
            shown = {k: v for k, v in found.items() if k not in ("kinds", "survivors")}
            print(name, shown, flush=True)
        return True

    def module(self, name: str, items: list) -> dict[str, object]:
        """Try the mutants of one module."""
        module = sys.modules[f"acl_lib.{name}"]
        source = Path(module.__file__).read_text()
        tests = "".join((ROOT / "tests" / file).read_text() for file in TESTS[name])
        of_source, of_tests = (hashlib.sha256(x.encode()).hexdigest() for x in (source, tests))
        every = mutants(source)
        drawn = random.Random(SEED).sample(every, len(every))  # a larger sample goes on from here
        chosen = every if self.sample is None else drawn[: self.sample]
        self.seconds, self.kills = {}, Counter()
        failed, said = self.fork(items, None, module, limit=1200)
        if failed:
            raise SystemExit(f"without a mutant these must pass: {said}")
        for line in said.splitlines():
            nodeid, _, seconds = line.rpartition(" ")
            self.seconds[nodeid] = float(seconds)
        quick = [item for item in items if self.seconds[item.nodeid] <= SLOW]
        usual = sum(self.seconds[item.nodeid] for item in quick)
        known = self.known(of_source, of_tests)
        print(
            f"{name}: {len(chosen)} of {len(every)} mutants, {len(quick)} of {len(items)} tests, "
            f"{usual:.0f} s without a mutant, {len(known)} known",
            flush=True,
        )
        done = []
        for mutant in chosen:
            killed, by = known.get(mutant["change"], (None, ""))
            if killed is None:
                quick.sort(key=lambda i: (-self.kills[i.nodeid], self.seconds[i.nodeid]))
                killed, by = self.fork(quick, mutant["source"], module, limit=3 * usual + 5)
                self.kills[by] += killed
                line = {"module": of_source, "tests": of_tests, "change": mutant["change"]}
                with self.progress.open("a") as file:
                    file.write(json.dumps({**line, "killed": killed, "by": by}) + "\n")
                if not killed:
                    print(f"  {name}:{mutant['line']} {mutant['change']}", flush=True)
            done.append({**mutant, "killed": killed, "late": killed and by == LATE})
        return {
            "mutants_in_all": len(every),
            **summary(name, done),
            "tests": len(quick),
            "slow_tests_left_out": len(items) - len(quick),
        }

    def known(self, of_source: str, of_tests: str) -> dict[str, tuple[bool, str]]:
        """What an earlier, interrupted run found; survivors only with these very tests."""
        found = {}
        if self.progress.exists():
            for line in map(json.loads, self.progress.read_text().splitlines()):
                if line["module"] == of_source and (line["killed"] or line["tests"] == of_tests):
                    found[line["change"]] = line["killed"], line["by"]
                    self.kills[line["by"]] += line["killed"]
        return found

    def fork(self, items, source: str | None, module, *, limit: float) -> tuple[bool, str]:
        """Whether a test failed in a process of its own, and which; else the seconds of each."""
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            code = 70
            try:
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, 1), os.dup2(nothing, 2)
                resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, int(limit) + 2))
                room = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (room + 3 * 2**30, room + 3 * 2**30))
                if source is not None:
                    install(module, source)
                code = self.run(items, writing, first=source is None)
            except BaseException as error:
                os.write(writing, f"failed before the tests: {error!r}"[:2000].encode())
                code = 1
            finally:
                os._exit(code)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            said = pipe.read()
        _, status = os.waitpid(child, 0)
        return status != 0, said or LATE

    def run(self, items, writing: int, first: bool) -> int:
        """Until a test fails; the first time, tests that start processes count as slow."""

        def slow(*_, **__) -> None:
            self.slow = True
            raise RuntimeError("no trial starts processes")

        subprocess.Popen.__init__ = slow
        for item, following in zip(items, [*items[1:], None], strict=True):
            jaxtyping.config.update("jaxtyping_disable", True)  # checked signatures take their time
            self.failure, self.slow, begun = False, False, time.process_time()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if first:
                spent = math.inf if self.slow else time.process_time() - begun
                os.write(writing, f"{item.nodeid} {spent}\n".encode())
            if self.failure and not (first and self.slow):
                os.write(writing, item.nodeid.encode())
                return 1
        return 0

    def pytest_runtest_logreport(self, report) -> None:
        self.failure = self.failure or report.failed


def summary(name: str, done: list[dict]) -> dict[str, object]:
    """Counts, their interval, and every survivor with the reason that it is let live."""
    from acl_lib.statistics import wilson_interval  # not before the tests check its signatures

    explained = json.loads(EXPLAINED.read_text()).get(name, {})
    killed = sum(mutant["killed"] for mutant in done)
    kinds = {}
    for mutant in done:
        kind = kinds.setdefault(mutant["kind"], {"mutants": 0, "killed": 0})
        kind["mutants"] += 1
        kind["killed"] += mutant["killed"]
    survivors = [
        {
            "line": mutant["line"],
            "change": mutant["change"],
            "why": explained.get(mutant["change"], "not explained"),
        }
        for mutant in done
        if not mutant["killed"]
    ]
    return {
        "mutants": len(done),
        "killed": killed,
        "of_these_too_slow": sum(mutant["late"] for mutant in done),
        "share": round(killed / len(done), 4),
        "wilson_95": [round(float(end), 4) for end in wilson_interval(killed, len(done))],
        "kinds": dict(sorted(kinds.items())),
        "survivors": sorted(survivors, key=lambda survivor: survivor["line"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", choices=TESTS, action="append", help="one module; may be repeated"
    )
    parser.add_argument("--sample", type=int, help="so many mutants of each, drawn; default: all")
    parser.add_argument("--out", type=Path, default=RECORD)
    args = parser.parse_args()
    progress = ROOT / "cache/mutants.jsonl"
    progress.parent.mkdir(exist_ok=True)
    names = args.only or list(TESTS)
    files = sorted({str(ROOT / "tests" / file) for name in names for file in TESTS[name]})
    options = [
        "-q",
        "-s",
        "-k",
        "not signatures_state and not finite_differences",
        "--tb=native",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(ROOT),
    ]
    trial = Trial(names, args.sample, progress, args.out)
    if code := pytest.main([*options, *files], plugins=[trial]):
        raise SystemExit(int(code))


if __name__ == "__main__":
    main()
