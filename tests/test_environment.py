"""pyproject.toml, constraints.txt, environment.yml and what is installed must agree."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
LINES = [
    line.split("#")[0].strip()
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
]
PINS = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in LINES if line}
DIRECT = [Requirement(r) for group in (PROJECT["dependencies"], *EXTRAS.values()) for r in group]


def test_constraints_are_plain_pins_given_once():
    pins = [line for line in LINES if line]
    assert [p for p in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[^=\s]+", p)] == []
    assert len(PINS) == len(pins)


@pytest.mark.parametrize("requirement", DIRECT, ids=str)
def test_every_direct_dependency_is_pinned_within_its_bound(requirement):
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_what_is_installed_is_what_is_pinned():
    seen = {}
    for package in importlib.metadata.distributions():
        name = canonicalize_name(package.metadata["Name"])
        if name in PINS:
            seen[name] = Version(package.version).public  # 2.11.0+cpu is 2.11.0
    assert {n: v for n, v in seen.items() if Version(PINS[n]) != Version(v)} == {}
    assert {canonicalize_name(r.name) for r in DIRECT} <= set(seen)


def test_what_the_package_imports_is_a_direct_dependency():
    named = {canonicalize_name(r.name) for r in DIRECT}
    owners = {
        top: {canonicalize_name(name) for name in names}
        for top, names in importlib.metadata.packages_distributions().items()
    }
    imports = set()
    for path in (ROOT / "acl_lib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imports |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imports.add(node.module.split(".")[0])
    others = imports - sys.stdlib_module_names - {"acl_lib"}
    assert {top for top in others if named.isdisjoint(owners.get(top, ()))} == set()


def test_environment_yml_defers_to_pyproject():
    env = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert set(env) == {"name", "channels", "dependencies"}
    assert env["channels"] == ["conda-forge", "nodefaults"]
    *conda, pip = env["dependencies"]
    assert {re.split("[=<> ]", d)[0] for d in conda} == {"python", "pip"}
    (python,) = (d.split("=")[1] for d in conda if d.startswith("python="))
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{python}.0")
    constraints, editable = pip["pip"]  # relative: conda runs pip in the folder of the file
    assert constraints == "-c constraints.txt"
    assert Requirement("acl" + editable.removeprefix("-e .")).extras == set(EXTRAS)


def test_citation_names_the_contributors_and_the_version():
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cff["authors"] == PROJECT["authors"] == [{"name": "the acl_lib contributors"}]
    assert (cff["version"], cff["license"]) == (PROJECT["version"], PROJECT["license"])
    assert all({"type", "title", "authors", "year"} <= set(r) for r in cff["references"])


def test_workflows_run_the_commands_of_the_readme():
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
        commands = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
        assert commands
        assert all(re.match(r"python3 run\.py (book|test|lint)$", c) for c in commands), path.name
