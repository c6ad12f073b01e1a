"""Is every public function tested? Each is made to do nothing, one at a time, and its tests run.

A function or method that returns None at once is noticed if a test fails, in a forked process of
its own, where nothing is imported again. The tests are those of its module, those that name it, and
those of modules that do; in a file, tests that name it run first. What is not noticed is explained
in `mutants_explained.json`, or is a gap. Left out: what a test of a browser or of another process
alone would see. Signatures are not checked, so that a wrong type of None is no reason. Needs a
system that can fork; goes on where it was interrupted.

    python benchmarks/stubs.py [--sample 100]
"""

import argparse
import importlib
import inspect
import json
import os
import random
import re
import resource
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import pytest
from timing import write_record

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RECORD = ROOT / "book/results/stubs.json"
EXPLAINED = HERE / "mutants_explained.json"
PROGRESS = ROOT / "cache/stubs.jsonl"
SEED = 0
LIMIT = 150  # CPU seconds; a function that keeps its tests busy for longer is noticed
# tests that start processes, a browser or minutes of training see no stub of this process
OTHERS = re.compile(r"browser|test_(sweeps|faults|same_again|classroom|run|fuzz_audio)\.py")


def public() -> Iterator[tuple[str, FunctionType]]:
    """Name and function of every public function and method of acl_lib."""
    for path in sorted((ROOT / "acl_lib").rglob("*.py")):
        dotted = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        if dotted.endswith(("__init__", "__main__")):
            continue
        module = importlib.import_module(dotted)
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", "") != dotted:
                continue
            if inspect.isclass(value):
                for method, one in vars(value).items():
                    one = getattr(one, "__func__", getattr(one, "fget", one))
                    if not method.startswith("_") and inspect.isfunction(one):
                        yield f"{dotted}.{name}.{method}", inspect.unwrap(one)
            elif callable(value) and inspect.isfunction(inspect.unwrap(value)):
                yield f"{dotted}.{name}", inspect.unwrap(value)


def nothing(*given, **named):
    """What every function is for a while."""


def method():
    __class__ = None

    def nothing(*given, **named):
        """The same for one that says super()."""
        return __class__ and None

    return nothing


def files_for(name: str) -> list[Path]:
    """Files of tests that may notice: of the module, naming the function, of modules that do."""
    parts = name.split(".")
    word = re.compile(rf"\b{parts[-1]}\b")
    tests = [p for p in sorted((ROOT / "tests").glob("test_*.py")) if not OTHERS.search(str(p))]
    own = [p for p in tests if p.stem.removeprefix("test_") in parts]
    named = [p for p in tests if word.search(p.read_text("utf-8"))]
    callers = {
        p.stem for p in (ROOT / "acl_lib").rglob("*.py") if word.search(p.read_text("utf-8"))
    }
    theirs = [p for p in tests if p.stem.removeprefix("test_") in callers]
    return list(dict.fromkeys([*own, *named, *theirs]))


class Order:
    """A pytest plugin: without what fails anyway, and first what names the function."""

    def __init__(self, word: str, failing: set[str]):
        self.word, self.failing, self.failed = re.compile(rf"\b{word}\b"), failing, []

    def pytest_collection_modifyitems(self, items: list) -> None:
        items[:] = [item for item in items if item.nodeid not in self.failing]
        items.sort(key=lambda item: not self.word.search(inspect.getsource(item.function)))

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed:
            self.failed.append(report.nodeid)


def tried(files: list[Path], word: str, failing: set[str], stub: FunctionType | None) -> list[str]:
    """The tests that fail, in a process of its own: all of them, or with a stub the first."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        os.close(reading)
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1), os.dup2(quiet, 2)
            order = Order(word, failing)
            options = ["-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), "--tb=no"]
            if stub:
                resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT + 1))
                stub.__code__ = (method() if stub.__code__.co_freevars else nothing).__code__
                stub.__defaults__, stub.__kwdefaults__ = None, None
                options.append("-x")
            code = pytest.main([*options, *map(str, files)], plugins=[order])
            failed = order.failed or ([] if code in (0, 5) else [f"pytest ended with {code}"])
            os.write(writing, json.dumps(failed).encode())
        except BaseException as error:
            os.write(writing, json.dumps([f"failed before the tests: {error!r}"]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return json.loads(said) if said else ["took too long"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, help="so many functions, drawn; default: all")
    sample = parser.parse_args().sample
    PROGRESS.parent.mkdir(exist_ok=True)
    lines = PROGRESS.read_text().splitlines() if PROGRESS.exists() else []
    known = {line["name"]: line for line in map(json.loads, lines)}
    baseline: dict[Path, set[str]] = {}
    every = list(public())
    functions = dict(random.Random(SEED).sample(every, len(every))[:sample])
    for name, function in functions.items():
        if name in known:
            continue
        by, tests = "", files_for(name)
        for file in tests:
            if file not in baseline:
                baseline[file] = set(tried([file], "none", set(), None))
            if failed := tried([file], name.split(".")[-1], baseline[file], function):
                by = failed[0]
                break
        known[name] = {"name": name, "by": by}
        with PROGRESS.open("a") as log:
            log.write(json.dumps(known[name]) + "\n")
        print(name, by or "NOT NOTICED", flush=True)
    from acl_lib.statistics import wilson_interval

    explained = json.loads(EXPLAINED.read_text()).get("stubs", {})
    lost = [name for name in functions if not known[name]["by"]]
    why = [{"name": name, "why": explained.get(name, "not explained")} for name in lost]
    noticed = len(functions) - len(lost)
    found = {"seed": SEED, "functions_in_all": len(every), "functions": len(functions)}
    found |= {"noticed": noticed, "wilson_95": list(wilson_interval(noticed, len(functions)))}
    write_record(RECORD, {**found, "not_noticed": why})
    print(found)


if __name__ == "__main__":
    main()
