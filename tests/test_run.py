"""run.py installs when it must, not otherwise, and hands on folders and exit codes."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


class Machine:
    """A copy of run.py in a folder of its own, whose commands are noted instead of run."""

    def __init__(self, folder, monkeypatch):
        for name in ("run.py", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, folder)
        spec = importlib.util.spec_from_file_location("run_copy", folder / "run.py")
        self.run = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.run)
        self.folder, self.calls, self.environments, self.fail = folder, [], [], []
        monkeypatch.setattr(self.run.subprocess, "run", self.note)

    def note(self, command, cwd, env=None):
        line = " ".join(command)
        self.calls.append(line)
        self.environments.append(env)
        if " -m venv" in line:
            self.run.VENV.mkdir(exist_ok=True)
        code = next((code for part, code in self.fail if part in line), 0)
        return subprocess.CompletedProcess(command, code)

    def __call__(self, *arguments):
        """Exit code, and the commands of this call."""
        self.calls, self.environments = [], []
        try:
            code = self.run.main(list(arguments))
        except SystemExit as stop:
            code = stop.code
        return code, self.calls


@pytest.fixture
def machine(tmp_path, monkeypatch):
    for name in ("ACL_VENV", "ACL_CPU", "ACL_NEWEST", "ACL_DATA", "ACL_CACHE", "ACL_RUNS"):
        monkeypatch.delenv(name, raising=False)
    return Machine(tmp_path, monkeypatch)


def test_the_second_run_installs_nothing(machine):
    code, calls = machine("setup")
    assert code == 0
    venv, pip, uv = calls
    assert " -m venv " in venv
    assert " -m pip install" in pip
    assert " -m uv pip install" in uv
    assert uv.endswith("-c constraints.txt -e .[book,test]")
    assert machine("setup") == (0, [])


def test_an_environment_behind_a_link_is_never_cleared(machine):
    other = machine.folder / "of another project"
    (other / "bin").mkdir(parents=True)
    stamp = {"made": {"python": [3, 11], "cpu": False, "root": "elsewhere"}, "spec": None}
    (other / ".acl-installed").write_text(json.dumps(stamp))
    (machine.folder / ".venv").symlink_to(other)
    code, calls = machine("setup")
    assert ".venv is a link: name that place by ACL_VENV" in code
    assert calls == [] and (other / "bin").is_dir()


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_changed_requirements_are_installed_on_top(machine, name):
    machine("setup")
    with (machine.folder / name).open("a") as file:
        file.write("\n# changed\n")
    _, calls = machine("setup")
    assert len(calls) == 3
    assert "--clear" not in calls[0]


def test_cpu_only_is_remembered_and_changing_to_it_starts_anew(machine, monkeypatch):
    monkeypatch.setattr(machine.run.sys, "platform", "linux")
    _, calls = machine("setup")
    assert "--torch-backend" not in calls[-1]
    _, calls = machine("setup", "--cpu")
    assert "--clear" in calls[0]  # the pin 2.11.0 is met by both builds: nothing would be swapped
    assert "--torch-backend cpu" in calls[-1]
    assert machine("setup") == (0, [])


def test_newest_versions_are_asked_for_without_constraints_and_remembered(machine, monkeypatch):
    machine("setup")
    _, calls = machine("setup", "--newest")
    assert "--clear" in calls[0]  # what is there and pinned would do
    assert not any("constraints.txt" in call for call in calls)
    assert "--upgrade" in calls[-1] and calls[-1].endswith("-e .[book,test]")
    assert machine("test")[1] == [machine.calls[0]]  # nothing is installed
    assert machine.environments[0]["ACL_NEWEST"] == "1"
    machine("clean")
    assert "constraints.txt" in machine("setup")[1][-1]
    monkeypatch.setenv("ACL_NEWEST", "1")
    assert "--upgrade" in machine("setup")[1][-1]


def test_a_moved_folder_starts_anew(machine):
    machine("setup")
    stamp = json.loads(machine.run.STAMP.read_text())
    stamp["made"]["root"] += "-before"
    machine.run.STAMP.write_text(json.dumps(stamp))
    assert "--clear" in machine("setup")[1][0]


def test_pip_takes_over_where_uv_fails(machine):
    machine.fail = [("-m uv", 2)]
    code, calls = machine("setup")
    assert code == 0
    assert " -m pip install" in calls[-1]
    assert calls[-1].endswith("-e .[book,test]")
    assert machine("setup") == (0, [])


def test_a_failed_installation_is_tried_again(machine):
    machine.fail = [("-e .[book,test]", 1)]
    assert "failed" in machine("setup")[0]
    machine.fail = []
    assert machine("setup")[0] == 0
    assert machine("setup") == (0, [])


def test_missing_venv_names_the_package(machine):
    machine.fail = [("-m venv", 1)]
    assert "python3-venv" in machine("setup")[0]


def test_the_book_is_published_then_built(machine, capsys):
    machine("setup")
    code, calls = machine("book", "--corpus", "esc10", "--profile", "laptop")
    assert code == 0
    assert calls[0].endswith("-m acl_lib.publish --corpus esc10 --profile laptop")
    assert calls[1].endswith("build book --path-output book -q -W -n --keep-going")
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.endswith(str(Path("book", "_build", "html", "index.html")))


def test_a_failing_notebook_ends_the_book(machine):
    machine("setup")
    machine.fail = [("publish", 1)]
    code, calls = machine("book")
    assert (code, len(calls)) == (1, 1)


def test_a_book_with_warnings_warns_again_at_the_next_build(machine):
    machine("setup")
    doctrees = machine.run.BUILD / ".doctrees"
    doctrees.mkdir(parents=True)
    machine.fail = [("jupyter-book", 1)]
    assert machine("book")[0] == 1
    assert not doctrees.exists()


def test_tests_hand_on_arguments_and_exit_code(machine):
    machine("setup")
    machine.fail = [("pytest", 5)]
    code, calls = machine("test", "-k", "losses", "--maxfail=1")
    assert code == 5
    assert calls[0].endswith("pytest -q -k losses --maxfail=1")
    _, calls = machine("test")
    assert re.search(r"pytest -q -n [2-4] --dist=loadfile --no-loadscope-reorder$", calls[0])


def test_lab_hands_on_arguments_and_stays_on_this_machine(machine):
    machine("setup")
    assert machine("lab", "--port=9000")[1][0].endswith(
        "lab --ip=127.0.0.1 --ServerApp.identity_provider_class=acl_lib.lab.AlwaysAsks --port=9000"
    )


@pytest.mark.parametrize(
    "word", ["--ip=0.0.0.0", "--ip", "--ServerApp.ip=*", "--NotebookApp.ip=::"]
)
def test_lab_does_not_open_to_the_network(machine, word, capsys):
    assert machine("lab", "--no-browser", word) == (2, [])
    assert "run code in your name" in capsys.readouterr().err


def test_lint_goes_through_every_check(machine):
    machine("setup")
    (machine.folder / "notebooks").mkdir()
    (machine.folder / "notebooks" / "01_a.ipynb").touch()
    machine.fail = [("ruff format", 1)]
    code, calls = machine("lint")
    assert code == 1
    assert calls[-1].endswith("01_a.ipynb")


def test_folders_are_absolute_for_the_tasks(machine, monkeypatch):
    monkeypatch.setenv("ACL_DATA", os.path.join("..", "sounds"))
    machine("setup")
    machine("test")
    (env,) = machine.environments
    assert env["ACL_DATA"] == str(Path.cwd() / ".." / "sounds")
    assert env["ACL_CACHE"] == str(machine.folder / "cache")
    assert env["ACL_RUNS"] == str(machine.folder / "runs")
    assert env["PATH"].split(os.pathsep)[0] == str(machine.run.BIN)


@pytest.mark.parametrize("arguments", [[], ["tset"], ["book", "--corpsu", "esc10"]])
def test_typing_errors_are_named_before_anything_is_installed(machine, arguments, capsys):
    assert machine(*arguments) == (2, [])
    assert (arguments or ["task"])[-1 if len(arguments) < 2 else 1] in capsys.readouterr().err


def test_clean_leaves_runs_caches_and_corpora(machine):
    for folder in (".venv", "book/_build", "book/notebooks", "book/static/vendor", "data", "runs"):
        (machine.folder / folder).mkdir(parents=True)
    assert machine("clean") == (0, [])
    left = {path.name for path in machine.folder.iterdir() if path.is_dir()}
    assert left - {"__pycache__"} == {"book", "data", "runs"}
    assert [p.name for p in (machine.folder / "book").rglob("*")] == ["static"]


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed; run.py needs none")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["book"], "run.py book"),
        (["book", "CORPUS=esc10", "PROFILE=laptop"], "run.py book --corpus esc10 --profile laptop"),
        *([[task], f"run.py {task}"] for task in ("test", "lab", "lint", "setup", "clean")),
    ],
)
def test_make_only_forwards(words, expected):
    command = ["make", "--no-print-directory", "-n", "PYTHON=python3", *words]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert told.split() == ["python3", *expected.split()]
