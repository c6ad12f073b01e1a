#!/usr/bin/env python3
"""Set up .venv where needed, then do one task.

    python3 run.py book     execute the notebooks and build the book
                            (--corpus esc10 --profile laptop: on another corpus, for longer)
    python3 run.py test     run every test; `run.py test -k losses` hands -k losses to pytest
    python3 run.py lab      JupyterLab, for this machine alone and with its token
    python3 run.py lint     check the style of code and notebooks
    python3 run.py setup    install, nothing else
    python3 run.py clean    remove .venv and the built book; runs, caches and corpora stay

Needs Python 3.11 or newer with venv, nothing else. --cpu (or ACL_CPU=1) installs the small CPU-only
PyTorch on Linux, --newest (or ACL_NEWEST=1) the newest versions that pyproject.toml allows instead
of those in constraints.txt; both are remembered until `run.py clean`. Corpora, caches and runs lie
in data/, cache/ and runs/ unless ACL_DATA, ACL_CACHE or ACL_RUNS name other folders; ACL_VENV names
another place for .venv.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
BUILD = ROOT / "book" / "_build"
VENV = Path(os.environ.get("ACL_VENV") or ROOT / ".venv").absolute()
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
STAMP = VENV / ".acl-installed"
SPEC = ".[book,test]"
# The whole suite: as many workers as there are cores; more would each import everything once more.
# A file stays with one worker, as a notebook does with its kernel.
WORKERS = ["-n", str(min(4, os.cpu_count() or 1)), "--dist=loadfile"]
WORKERS += ["--no-loadscope-reorder"]  # tests/conftest.py orders them
# for this machine alone: an option that names another address as well is refused by Jupyter
LAB = ["--ip=127.0.0.1", "--ServerApp.identity_provider_class=acl_lib.lab.AlwaysAsks"]
FOLDERS = {"ACL_DATA": "data", "ACL_CACHE": "cache", "ACL_RUNS": "runs"}


def call(*command: str | Path, env: dict[str, str] | None = None) -> int:
    """Run a program of .venv, or of the system, in the project's folder."""
    program, *rest = map(str, command)
    return subprocess.run(
        [shutil.which(program, path=str(BIN)) or program, *rest], cwd=ROOT, env=env
    ).returncode


def environment() -> dict[str, str]:
    """Variables for the tasks; folders absolute, because kernels start in notebooks/."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONHOME"}
    env["VIRTUAL_ENV"] = str(VENV)
    env["PATH"] = os.pathsep.join([str(BIN), env.get("PATH", "")])
    for name, folder in FOLDERS.items():
        given = env.get(name)
        env[name] = str(Path(given).expanduser().absolute() if given else ROOT / folder)
    if STAMP.exists() and json.loads(STAMP.read_text())["made"].get("newest"):
        env["ACL_NEWEST"] = "1"  # the tests then ask for no pinned version
    # threads that spin while they wait slow a busy machine down
    env.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return env


def install(cpu: bool, newest: bool) -> None:
    """Bring .venv to what pyproject.toml and constraints.txt say, if it is not there yet."""
    inputs = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    spec = hashlib.sha256(b"\0".join([SPEC.encode(), *inputs])).hexdigest()
    known = json.loads(STAMP.read_text()) if STAMP.exists() else None
    cpu = cpu or bool(known and known["made"]["cpu"])
    newest = newest or bool(known and known["made"].get("newest"))
    made = {"python": list(sys.version_info[:2]), "cpu": cpu, "root": str(ROOT)}
    made |= {"newest": True} if newest else {}
    if known == {"made": made, "spec": spec}:
        return
    if VENV.is_symlink():  # what would be cleared is somebody else's
        sys.exit(f"{VENV} is a link: name that place by ACL_VENV if it is this project's own")
    print(f"Installing into {VENV} (once; some minutes, up to 6 GB)", flush=True)
    # another Python, PyTorch or folder cannot be reached by installing on top
    anew = ["--clear"] if known and known["made"] != made else []
    if call(sys.executable, "-m", "venv", *anew, VENV):
        sys.exit("No virtual environment. On Debian or Ubuntu: sudo apt install python3-venv")
    STAMP.write_text(json.dumps({"made": made, "spec": None}))
    quiet = [] if sys.stderr.isatty() else ["-q"]
    versions = ["--upgrade"] if newest else ["-c", "constraints.txt"]
    pip = [PYTHON, "-m", "pip", "install", *quiet, *versions]
    uv = [PYTHON, "-m", "uv", "pip", "install", "--python", PYTHON, *quiet, *versions]
    backend = ["--torch-backend", "cpu"] if cpu and sys.platform == "linux" else []
    # uv installs the same versions several times faster; pip also reads pip.conf and PIP_*
    if call(*pip, "uv") or call(*uv, *backend, "-e", SPEC):
        if backend:
            sys.exit("uv could not install the CPU-only PyTorch, see above; pip would take CUDA's")
        print("uv did not succeed, see above; trying pip", flush=True)
        if call(*pip, "-e", SPEC):
            sys.exit("The installation failed, see above. What is there stays; run this again")
    STAMP.write_text(json.dumps({"made": made, "spec": spec}))


def book(env: dict[str, str], corpus: str, profile: str) -> int:
    publish = [PYTHON, "-m", "acl_lib.publish", "--corpus", corpus, "--profile", profile]
    if code := call(*publish, env=env):
        return code
    # Sphinx copies what is shown now and leaves what was: of another licence, perhaps
    shutil.rmtree(BUILD / "html" / "_static" / "vendor" / "clips", ignore_errors=True)
    build = ["jupyter-book", "build", "book", "--path-output", "book", "-q"]
    if code := call(*build, "-W", "-n", "--keep-going", env=env):
        # Sphinx would not read a page that warned again, and the next build would pass
        shutil.rmtree(BUILD / ".doctrees", ignore_errors=True)
        return code
    print(f"\nThe book, for any browser: {BUILD / 'html' / 'index.html'}")
    return 0


def lint(env: dict[str, str]) -> int:
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    checks = [["ruff", "check", "."], ["ruff", "format", "--check", "."]]
    if notebooks:  # without a file nbstripout reads the keyboard
        checks.append(["nbstripout", "--verify", *notebooks])
    return max([call(*check, env=env) for check in checks])


def clean() -> int:
    for folder in (".venv", "book/_build", "book/notebooks", "book/static/vendor"):
        shutil.rmtree(ROOT / folder, ignore_errors=True)
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        usage="python3 run.py {book,test,lab,lint,setup,clean} [options]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("task", choices=["book", "test", "lab", "lint", "setup", "clean"])
    parser.add_argument("--corpus", default="synthetic", help="of the book (synthetic)")
    parser.add_argument("--profile", default="quick", help="of the book (quick)")
    parser.add_argument("--cpu", action="store_true", help="install PyTorch without CUDA")
    parser.add_argument("--newest", action="store_true", help="install without constraints.txt")
    options, extra = parser.parse_known_args(argv)
    if extra and options.task not in ("test", "lab"):
        parser.error(f"{options.task} does not know {' '.join(extra)}")
    if options.task == "lab" and any(re.match(r"--(\w+\.)?ip\b", word) for word in extra):
        parser.error(
            "lab listens on this machine alone: whoever reaches it can run code in your name. From "
            "another machine, come through ssh -L 8888:localhost:8888; or start jupyter lab itself"
        )
    if sys.version_info < (3, 11):  # noqa: UP036 (an older Python can start this file)
        sys.exit(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}")
    if options.task == "clean":
        return clean()
    asked = {name: os.environ.get(f"ACL_{name.upper()}") == "1" for name in ("cpu", "newest")}
    install(options.cpu or asked["cpu"], options.newest or asked["newest"])
    env = environment()
    if options.task == "book":
        return book(env, options.corpus, options.profile)
    if options.task == "test":
        env.setdefault("OMP_NUM_THREADS", "1")  # workers share the cores
        return call("pytest", "-q", *(extra or WORKERS), env=env)
    if options.task == "lab":
        return call("jupyter", "lab", *LAB, *extra, env=env)
    return lint(env) if options.task == "lint" else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nInterrupted; what is finished stays, the same command goes on")
        sys.exit(130)
