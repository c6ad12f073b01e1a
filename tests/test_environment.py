"""pyproject.toml, constraints.txt, environment.yml and what is installed must agree."""

import ast
import csv
import email.message
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import types
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

NEWEST = os.environ.get("ACL_NEWEST") == "1"  # installed without constraints.txt


def test_constraints_are_plain_pins_given_once():
    pins = [line for line in LINES if line]
    assert [p for p in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[^=\s]+", p)] == []
    assert len(PINS) == len(pins)


@pytest.mark.parametrize("requirement", DIRECT, ids=str)
def test_every_direct_dependency_is_pinned_within_its_bound(requirement):
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


@pytest.mark.skipif(NEWEST, reason="the newest versions were asked for, not the pinned ones")
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


def steps(path):
    """All steps of a workflow."""
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


WORKFLOWS = ROOT / ".github" / "workflows"


@pytest.mark.parametrize("name", ["book", "test"])
def test_workflows_run_the_commands_of_the_readme(name):
    commands = [step["run"] for step in steps(WORKFLOWS / f"{name}.yml") if "run" in step]
    assert commands
    assert all(re.match(r"python3 run\.py (book|test|lint)$", c) for c in commands)


# --- the scheduled job

FAKE = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >> "$CALLS"
echo "said by $*"
case "$*" in *"$FAILS"*) printf 'FAILED tests/test_a.py::test_b - reason\\n'; exit 1 ;; esac
"""


@pytest.fixture
def newest(tmp_path):
    """Runs .ci/newest where python3, the .venv and uvx only note that they were called."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "newest", tmp_path / ".ci")
    for folder, name in ((".venv/bin", "python"), (".venv/bin", "uvx"), ("bin", "python3")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name).write_text(FAKE)
        (tmp_path / folder / name).chmod(0o755)

    def call(fails):
        env = {k: v for k, v in os.environ.items() if not k.startswith("ACL_")}
        env |= {"CALLS": str(tmp_path / "calls"), "FAILS": fails}
        env["PATH"] = os.pathsep.join([str(tmp_path / "bin"), env["PATH"]])
        done = subprocess.run(
            [tmp_path / ".ci" / "newest", "report.md"], cwd=tmp_path, env=env, capture_output=True
        )
        called = (tmp_path / "calls").read_text().splitlines()
        return done.returncode, (tmp_path / "report.md").read_text(), called

    return call


@pytest.mark.skipif(os.name == "nt", reason="a shell script, for the scheduled job")
@pytest.mark.parametrize("fails", ["nothing", "setup", "book", "test", "pip-audit"])
def test_the_scheduled_job_goes_through_everything_and_says_what_broke(newest, fails):
    code, report, called = newest(f"{fails} --strict" if fails == "pip-audit" else f"py {fails}")
    names = {"setup": "Installation", "book": "The book", "test": "The tests"}
    names["pip-audit"] = "Advisories"
    for word, title in names.items():
        outcome = f"**{title}**: fails\n\n```\nFAILED tests/test_a.py::test_b - reason\n```"
        if fails == "setup" and word != "setup":
            assert title not in report  # without packages nothing else can be said
        else:
            assert (outcome if word == fails else f"**{title}**: passes") in report
    assert code == (fails != "nothing")
    assert len(called) == (1 if fails == "setup" else 5)


def test_the_weekly_workflow_lifts_the_bounds_that_there_are_and_reports():
    lift, check, *told = [step for step in steps(WORKFLOWS / "newest.yml") if "run" in step]
    assert check["run"] == ".ci/newest report.md"
    pattern, to = re.fullmatch(r"sed -i -E 's/(.*)/(.*)/' pyproject\.toml", lift["run"]).groups()
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.subn(pattern, to, text)[1] == 2
    assert '"torch", ' in re.sub(pattern, to, text).replace('"torch",  ', '"torch", ')
    assert [step["if"] for step in told] == ["always()", "failure()"]


# --- licences

TABLE = ROOT / "book" / "results" / "dependencies.csv"


def dependencies():
    spec = importlib.util.spec_from_file_location(
        "dependencies", ROOT / "benchmarks" / "dependencies.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_dependencies_is_that_of_the_constraints(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dependencies.py", str(tmp_path / "table.csv")])
    dependencies().main()
    with TABLE.open(newline="", encoding="utf-8") as old:
        rows = list(csv.DictReader(old))
    assert {row["package"]: row["version"] for row in rows} == PINS
    named = {row["package"]: row["named by"] for row in rows if row["named by"]}
    assert set(named) == {canonicalize_name(r.name) for r in DIRECT}
    if not NEWEST:  # what the installed packages say is what the table says
        assert (tmp_path / "table.csv").read_text() == TABLE.read_text(encoding="utf-8")


def test_every_licence_is_said_and_what_binds_is_marked():
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = {row["package"]: row for row in csv.DictReader(file)}
    assert [name for name, row in rows.items() if row["licence"] == "not said"] == ["cuda-toolkit"]
    binding = {n for n, row in rows.items() if re.search("GPL|General Public", row["licence"])}
    assert binding == {"soxr", "docutils"}
    assert all(rows[name]["note"] for name in [*binding, "soundfile", "tqdm", "nvidia-cublas"])


@pytest.mark.parametrize(
    ("said", "licence"),
    [
        ({"License-Expression": "MIT OR Apache-2.0", "License": "GPL"}, "MIT OR Apache-2.0"),
        ({"License": "BSD 3-Clause License\n\nCopyright"}, "BSD-3-Clause"),
        ({"License": "MPL-2.0 AND MIT"}, "MPL-2.0 AND MIT"),
        (
            {"License": "Copyright (c) of ours", "Classifier": "License :: OSI :: MIT License"},
            "MIT",
        ),
        ({"License": "mine alone"}, "not said"),
        ({"Classifier": "License :: OSI :: BSD License"}, "BSD"),
    ],
)
def test_a_licence_is_read_from_what_a_package_says(said, licence):
    metadata = email.message.Message()
    for name, value in said.items():
        metadata[name] = value
    package = types.SimpleNamespace(metadata=metadata, files=[])
    assert dependencies().licence(package)[0] == licence


def test_what_changed_against_the_constraints_is_told(monkeypatch):
    def package(name, version):
        return types.SimpleNamespace(metadata={"Name": name}, version=version)

    ours = dependencies()
    found = [
        package("A_b", "2.0+cpu"),
        package("same", "1"),
        package("new", "3"),
        package("pip", "1"),
    ]
    monkeypatch.setattr(ours, "pins", lambda: {"a-b": "1.5", "same": "1.0", "gone": "1"})
    monkeypatch.setattr(ours.importlib.metadata, "distributions", lambda: found)
    assert ours.changed() == [("a-b", "1.5", "2.0"), ("new", "none", "3")]


# --- forms and texts that the hosting site looks for


def test_the_forms_for_issues_are_complete():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.stem == "config":
            assert form == {"blank_issues_enabled": True}
            continue
        assert {"name", "description", "body"} <= set(form)
        assert len({field["id"] for field in form["body"]}) == len(form["body"])
        for field in form["body"]:
            assert field["type"] in ("input", "textarea") and field["attributes"]["label"]


@pytest.mark.parametrize("name", ["README", "CONTRIBUTING", "CHANGELOG", "SECURITY"])
def test_what_the_texts_at_the_top_name_is_there(name):
    text = (ROOT / f"{name}.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    files = re.findall(
        r"`((?:book|tests|benchmarks)/[\w/.]+\.\w+|[A-Z][\w.-]+\.(?:cff|md)|LICENSE[\w.-]*)`", text
    )
    assert links or files
    assert [path for path in [*links, *files] if not (ROOT / path).exists()] == []


def test_the_licences_are_named_wherever_one_is():
    text = (ROOT / "LICENSE-CC-BY-4.0").read_text(encoding="utf-8")
    assert text.startswith("Attribution 4.0 International\n")
    assert len(re.findall(r"^Section \d -- ", text, re.M)) == 8
    assert PROJECT["license-files"] == ["LICENSE", "LICENSE-CC-BY-4.0"]
    for name in ("README.md", "book/data_and_licences.md", "CONTRIBUTING.md", "_config.yml"):
        assert "CC BY 4.0" in (ROOT / name).read_text(encoding="utf-8"), name
