"""Execute the notebooks into book/notebooks/, in the form that the book prints.

    python3 run.py book                           # calls this, with ACL_DATA and its like set
    python -m acl_lib.publish [NAME ...] [--corpus NAME] [--profile NAME] [--force]

A copy is left alone while the notebook's sources and tags, the parameters it was given, the code of
acl_lib and the book's records are what they were. An interrupted run goes on with what is not done.

Once `_config.yml` names the project's address (`repository: url:`), the pages get launch buttons,
and every notebook a first cell that installs the library in Google Colab; pages leave it out.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import nbformat
from filelock import FileLock, Timeout
from tqdm import tqdm

from . import config, origins
from .whole import write_whole

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "notebooks"
COPIES = ROOT / "book" / "notebooks"
RESULTS = ROOT / "book" / "results"
CONFIG = ROOT / "_config.yml"
VENDOR = ROOT / "book" / "static" / "vendor"
MATHJAX = VENDOR / "mathjax" / "tex-svg.js"
WELCOME = VENDOR / "welcome.html"
LEDGER = VENDOR / "ledger.csv"
# "file:" for pages from a disk; scripts and styles of ours stand in the pages themselves
POLICY = "default-src 'self' file: data: blob: 'unsafe-inline'"

# Runs that pages find again, by the page: made once, before the first of them is executed.
RUNS = {
    "08_contrastive_pretraining": "contrastive",
    "09_acl_pretraining": "acl",
    "12_embedding_analysis": "contrastive",
}

COLAB = """\
# In Google Colab only: fetch the project and install its library
import os, sys

if "google.colab" in sys.modules:
    get_ipython().system("git clone -q --depth 1 {url} /content/project")
    get_ipython().system("pip install -q /content/project")
    os.chdir("/content/project/notebooks")"""

WATCH = "import acl_lib.origins; acl_lib.origins.watch(get_ipython())"


class NotebookError(RuntimeError):
    """A notebook did not run to its end; the message names the copy that holds the traceback."""


def assigned(source: str) -> dict[str, ast.expr]:
    """Name and value of each `name = value` and `name: type = value` at the top level."""
    found = {}
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(targets[0], ast.Name) and getattr(node, "value", None):
            found[targets[0].id] = node.value
    return found


def parameter_cell(nb: nbformat.NotebookNode, tag: str = "parameters"):
    """The first cell with this tag, or None."""
    return next((c for c in nb.cells if tag in c.metadata.get("tags", [])), None)


def repository_url(config: Path = CONFIG) -> str:
    """The project's address; empty until `_config.yml` names one."""
    import yaml

    return (yaml.safe_load(config.read_text()).get("repository") or {}).get("url") or ""


def with_colab_cell(nb: nbformat.NotebookNode, url: str) -> nbformat.NotebookNode:
    """The notebook with the cell that installs the library in Google Colab, if there is a URL."""
    cells = [cell for cell in nb.cells if "colab" not in cell.metadata.get("tags", [])]
    if url:
        cell = nbformat.v4.new_code_cell(COLAB.format(url=url), metadata={"tags": ["colab"]})
        cell.id = "colab"
        cells.insert(1, cell)  # below the title
    return nbformat.from_dict({**nb, "cells": cells})


def code_digest() -> str:
    """Changes with every byte of acl_lib that a notebook can run and of the records it can read."""
    digest = hashlib.sha256()
    for folder, kinds in ((Path(__file__).parent, {".py", ".mjs"}), (RESULTS, {".json"})):
        for path in sorted(p for p in folder.rglob("*") if p.suffix in kinds):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def digest(nb: nbformat.NotebookNode, values: dict, code: str) -> str:
    """Of all that decides a copy: what the author wrote, the parameters, the package."""
    keep = ("tags", "mystnb", "jupyter")
    cells = [[c.cell_type, c.source, {k: c.metadata.get(k) for k in keep}] for c in nb.cells]
    return hashlib.sha256(json.dumps([cells, values, code], sort_keys=True).encode()).hexdigest()


def fold(shown: str, injected: str) -> str:
    """The author's parameter cell with the values that were used, comments kept."""
    used = {k: ast.get_source_segment(injected, v) for k, v in assigned(injected).items()}
    lines = [line.encode() for line in shown.splitlines()]  # ast counts in bytes
    for name, old in assigned(shown).items():
        if name in used and old.lineno == old.end_lineno:
            line = lines[old.lineno - 1]
            line = line[: old.col_offset] + used[name].encode() + line[old.end_col_offset :]
            lines[old.lineno - 1] = line
    return b"\n".join(lines).decode()


def plain(text: str) -> str:
    """Text without what differs from run to run and from machine to machine."""
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", text).replace(f"{ROOT}{os.sep}", "")


def passing(output: nbformat.NotebookNode) -> bool:
    """Whether an output was meant for the one who waited: standard error, and progress bars."""
    shown = output.get("data", {}).get("text/plain", "")
    return output.get("name") == "stderr" or re.search(r"\d+%\|.*\[\d\d:\d\d", shown) is not None


def with_origins(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Outputs with the files that they rest on in a line below them, if there is more to see."""
    files = [o.data[origins.MIME] for o in outputs if origins.MIME in o.get("data", {})]
    shown = [o for o in outputs if origins.MIME not in o.get("data", {})]
    if shown and files:
        text = {"text/markdown": origins.line(files[-1])}
        metadata = {"origins": files[-1]}
        shown.append(nbformat.v4.new_output("display_data", data=text, metadata=metadata))
    return shown


def tidy(nb: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Papermill's result as it is printed: one parameter cell, nothing that needs a kernel."""
    if injected := parameter_cell(nb, "injected-parameters"):
        shown = parameter_cell(nb)
        shown.source = fold(shown.source, injected.source)
        nb.cells.remove(injected)  # papermill adds it after the author's cell
    nb.cells = with_colab_cell(nb, "").cells
    for cell in nb.cells:
        for noise in ("papermill", "execution", "exception"):
            cell.metadata.pop(noise, None)
        if cell.cell_type == "markdown":  # the copy lies one folder deeper in the book
            cell.source = cell.source.replace("](../book/", "](../")
        else:
            shown = [o for o in cell.get("outputs", []) if not passing(o)]
            cell.outputs = with_origins(shown)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/html" in data:  # it stands for the widget, which has no kernel in the book
                data.pop("application/vnd.jupyter.widget-view+json", None)
            for part, key in ((output, "text"), (data, "text/plain"), (data, "text/html")):
                if key in part:
                    part[key] = plain(part[key])
    for noise in ("papermill", "widgets"):
        nb.metadata.pop(noise, None)
    nb.metadata["language_info"] = {"name": "python"}
    return nb


def publish(path: Path, copy: Path, values: dict, stamp: str) -> None:
    """Execute one notebook; its copy appears when it is complete.

    Raises:
        NotebookError: if a cell fails or the kernel dies; the running copy stays.
    """
    import papermill  # 4 s that a run with nothing to do can spare

    running = copy.with_suffix(".running.ipynb")
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            path,
            running,
            parameters=values,
            cwd=path.parent,
            progress_bar={"desc": path.stem, "leave": False, "disable": None},
            extra_arguments=[
                "--IPKernelApp.log_level=ERROR",  # it warns about loopback sockets
                f"--InteractiveShellApp.exec_lines={WATCH}",
            ],
        )
    except Exception as error:
        what = f"{getattr(error, 'ename', type(error).__name__)}: {getattr(error, 'evalue', error)}"
        where = f"\nThe traceback is in {running}" if running.exists() else ""
        raise NotebookError(f"{path.name} stopped: {what}{where}") from error
    nb = tidy(nbformat.read(running, as_version=4))
    nb.metadata["acl"] = {"digest": stamp, "parameters": values}
    nbformat.write(nb, running)
    os.replace(running, copy)


def share_runs(recipes: set[str], corpus: str, profile: str) -> int:
    """Make the runs of some recipes, seed 0 on all clips, or find them; the exit status."""
    for recipe in sorted(recipes):
        start = time.monotonic()
        command = [sys.executable, "-m", "acl_lib", "run", recipe, "--pretrain-on", "all"]
        command += ["--corpus", corpus, "--profile", profile]
        # where the kernels start, so that both look for runs in one place; pages show the table
        done = subprocess.run(command, cwd=SOURCES, stdout=subprocess.DEVNULL)
        if done.returncode:
            return done.returncode
        print(f"Run that pages share: {recipe}, {time.monotonic() - start:.0f} s", flush=True)
    return 0


def read_source(path: Path) -> nbformat.NotebookNode:
    """A notebook of the author's.

    Raises:
        ValueError: the file is no notebook.
    """
    try:
        return nbformat.read(path, as_version=4)
    except ValueError as error:
        raise ValueError(f"{path} is no notebook: {error}; mend it or take it away") from None


def is_current(path: Path, code: str) -> bool:
    """Whether a notebook has been executed as it is now, with its copy's parameters.

    Args:
        code: `code_digest()`.
    """
    copy, nb = COPIES / path.name, read_source(path)
    if copied_digest(copy) is None:
        return False
    kept, shown = nbformat.read(copy, as_version=4).metadata["acl"], {}
    if shows_map(nb):
        from .explorers.media import best_corpus  # it imports torch

        shown = {"sound_map": best_corpus()}
    return digest(nb, kept["parameters"] | shown, code) == kept["digest"]


def copied_digest(copy: Path) -> str | None:
    """The digest that a finished copy carries; None also where it is damaged."""
    if not copy.exists():
        return None
    try:
        return nbformat.read(copy, as_version=4).metadata.get("acl", {}).get("digest")
    except ValueError:  # it is made again
        print(f"{copy} is damaged: executing its notebook again", file=sys.stderr)
        return None


def copy_mathjax() -> None:
    """Put the one file that sets the formulas, without network or fonts, among the book's files."""
    package = importlib.metadata.distribution("sphinx-mathjax-offline")
    script = Path(package.locate_file("sphinx-mathjax-offline/static/mathjax/tex-svg.js"))
    if not MATHJAX.exists() or MATHJAX.read_bytes() != script.read_bytes():
        write_whole(MATHJAX, script.read_bytes())


def draw_welcome(code: str) -> None:
    """Put the moving picture of the welcome page among the book's files, if its code has changed.

    Args:
        code: `code_digest()`, by which the next build knows the picture again.
    """
    stamp = f"<!-- {code} -->\n"
    if WELCOME.exists() and WELCOME.read_text(encoding="utf-8").startswith(stamp):
        return
    from . import explorers  # it imports torch

    picture = explorers.circle(alpha=0.3, play=True, small=True).data
    write_whole(WELCOME, (stamp + picture).encode())


def write_ledger() -> None:
    """Put the table of all records among the book's files, for readers to take away."""
    from .ledger import ledger, write_csv  # it imports torch

    write_csv(ledger([RESULTS]), LEDGER)


def make_clips(notebooks: Iterable[nbformat.NotebookNode]) -> dict[str, str]:
    """Put the sounds of the map among the book's files, if one of the notebooks shows it.

    Returns:
        What the map shows, which decides a copy as its parameters do: another corpus appears or
        goes with the reader's data.

    Raises:
        FileNotFoundError, ValueError: the record of the map is missing, or is of other sounds.
    """
    if not any(shows_map(nb) for nb in notebooks):
        return {}
    from .explorers import media  # it imports torch

    return {"sound_map": media.make_shown(VENDOR)}


def shows_map(nb: nbformat.NotebookNode) -> bool:
    """Whether a notebook calls `explorers.sound_map`."""
    return any("sound_map" in c.source for c in nb.cells if c.cell_type == "code")


def check(corpus: str, profile: str) -> None:
    """Refuse a name that would only fail inside a notebook.

    Raises:
        ValueError: if the profile or the corpus is unknown, or the corpus asks about speakers.
        CorpusNotFoundError: if the corpus is not on this machine.
    """
    config.profile(profile)
    if corpus != "synthetic":  # that one is made, not found
        from .datasets import open_corpus  # it imports torch

        if open_corpus(corpus).task != "classification":
            raise ValueError(
                f"{corpus} asks who speaks, and the pages ask which class a sound is of: choose "
                f"another corpus, or `acl run nt_xent_am --corpus {corpus}`"
            )


def setup(app) -> dict:
    """As an extension of Sphinx: what no page may do.

    Where the project has no address there are no launch buttons: the theme would otherwise launch a
    repository that is not ours. And every page tells the browser to fetch nothing from elsewhere.
    """

    def hide(app, config) -> None:
        if not config.html_theme_options.get("repository_url"):
            config.html_theme_options["launch_buttons"] = {}

    def keep_to_itself(app, page, template, context, doctree) -> None:
        policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}" />'
        context["metatags"] = policy + context.get("metatags", "")

    app.connect("config-inited", hide)
    app.connect("html-page-context", keep_to_itself)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def main(argv: list[str] | None = None) -> int:
    """Execute what is not current; the number that the process ends with."""
    parser = argparse.ArgumentParser(
        prog="python -m acl_lib.publish",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as 04_nt_xent; or all")
    parser.add_argument("--corpus", default="synthetic")
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--force", action="store_true", help="also what is current")
    options = parser.parse_args(argv)
    sources = {path.stem: path for path in sorted(SOURCES.glob("*.ipynb"))}
    if unknown := set(options.names) - set(sources):
        parser.error(f"no notebook {', '.join(sorted(unknown))}; there are {', '.join(sources)}")

    try:
        with alone():
            for folder in (VENDOR, SOURCES):  # of a build that was killed
                for part in folder.rglob("*.part"):
                    part.unlink()
            return execute(options, sources)
    except OSError as error:
        what = "What is finished is kept; mend this, by free space say, and run it again"
        print(f"The book cannot be written: {error}. {what}", file=sys.stderr)
        return 2


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Wait until no other process builds this book, and keep others waiting."""
    COPIES.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(COPIES.with_name(".publish.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print("Another process is building this book: waiting for it", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def execute(options: argparse.Namespace, sources: dict[str, Path]) -> int:
    """Execute those notebooks that are not current; the number that the process ends with."""
    names = options.names or list(sources)
    copy_mathjax()
    for copy in COPIES.glob("*.ipynb"):
        if copy.name.split(".")[0] not in sources:
            copy.unlink()  # its notebook was renamed or removed

    code, url, todo = code_digest(), repository_url(), []
    try:
        read = {name: read_source(sources[name]) for name in names}
        shown = make_clips(read.values())
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    for name, nb in read.items():
        if with_colab_cell(nb, url) != nb:
            nb = with_colab_cell(nb, url)
            write_whole(sources[name], (nbformat.writes(nb) + "\n").encode())
        cell = parameter_cell(nb)
        known = assigned(cell.source) if cell else {}
        values = {k: getattr(options, k) for k in ("corpus", "profile") if k in known}
        stamp = digest(nb, values | shown if shows_map(nb) else values, code)
        if options.force or copied_digest(COPIES / f"{name}.ipynb") != stamp:
            todo.append((sources[name], COPIES / f"{name}.ipynb", values, stamp))
    try:
        if todo:
            check(options.corpus, options.profile)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2

    os.environ["ACL_PUBLISH"] = "1"  # kernels inherit it: pictures of sliders instead of sliders
    draw_welcome(code)
    if todo:  # else no record and no code has changed
        write_ledger()
    shared = {RUNS[path.stem] for path, *_ in todo if path.stem in RUNS}
    if status := share_runs(shared, options.corpus, options.profile):
        return status
    bar = tqdm(todo, desc="Book", unit="notebook", disable=None, leave=False)
    for i, (path, copy, values, stamp) in enumerate(bar, 1):
        given = "".join(f", {k} {v}" for k, v in values.items())
        start = time.monotonic()
        try:
            publish(path, copy, values, stamp)
        except NotebookError as error:
            bar.close()
            print(error, file=sys.stderr)
            return 1
        took = time.monotonic() - start
        bar.write(f"[{i}/{len(todo)}] {path.name}{given}: {took:.0f} s", file=sys.stdout)
    print(f"Notebooks: {len(todo)} executed, {len(names) - len(todo)} current")
    return 0


if __name__ == "__main__":
    sys.exit(main())
