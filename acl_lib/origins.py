"""Below each output of a page: the records, plans and published tables that it came from.

While a page is made, its kernel notes which line of a cell reads which file of `book/results` and
`grids`, and which names hold something of it. An output that rests on such a name, through however
many cells, gets a line with the files. One without a line was calculated on the page.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("book/results", "grids")
TABLES = "acl_lib/published.py"
MIME = "application/vnd.acl.origins+json"
CHANGING = {"append", "add", "update", "extend", "insert", "setdefault"}  # what they are called on
SILENT = (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.FunctionDef, ast.Assert)
SHOWN = 4  # files of a folder that are named one by one; more are counted


class Trace:
    """Which files the names of a notebook rest on, statement by statement.

    A name that holds what several files say, as a dict of records does, rests in a cell on those
    whose stem the cell spells out in a string; where it spells out none, on all of them.
    """

    def __init__(self) -> None:
        self.origins: dict[str, dict[str, None]] = {}  # of each name; a dict is an ordered set

    def cell(
        self, source: str, read: Iterable[tuple[int, str]], modules: Iterable[str] = ()
    ) -> list[str]:
        """Take note of a cell that ran.

        Args:
            source: Python.
            read: line (from 1) and name of each file that was read, in their order.
            modules: names of modules, on which nothing rests.

        Returns:
            The files that the output rests on.
        """
        tree, read, modules = ast.parse(source), list(read), set(modules)
        words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        output: dict[str, None] = {}
        for statement in tree.body:
            names = Names(statement)
            files: dict[str, None] = {}
            for name in (n for n in names.loaded if n not in modules):
                known = self.origins.get(name, {})
                files |= {file: None for file in known if Path(file).stem in words} or known
            lines = range(statement.lineno, statement.end_lineno + 1)
            files |= {file: None for line, file in read if line in lines}
            files |= {TABLES: None} if names.tables else {}
            for name in names.stored:
                self.origins[name] = files
            for name in names.changed - modules:
                self.origins[name] = self.origins.get(name, {}) | files
            if not isinstance(statement, SILENT):
                output |= files
        return list(output)


class Names(ast.NodeVisitor):
    """Names that a statement takes from outside, assigns and changes, in the order it runs."""

    def __init__(self, statement: ast.stmt) -> None:
        self.loaded: dict[str, None] = {}
        self.stored: set[str] = set()
        self.changed: set[str] = set()
        self.tables = False
        self.visit(statement)

    def visit_Name(self, node: ast.Name) -> None:
        self.tables |= node.id == "TABLES"
        if isinstance(node.ctx, ast.Store):
            self.stored.add(node.id)
        elif node.id not in self.stored:
            self.loaded[node.id] = None

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.tables |= node.attr == "TABLES"
        self._part(node, isinstance(node.ctx, ast.Store) or node.attr in CHANGING)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self._part(node, isinstance(node.ctx, ast.Store))

    def _part(self, node: ast.Attribute | ast.Subscript, changes: bool) -> None:
        whole = node
        while isinstance(whole, ast.Attribute | ast.Subscript):
            whole = whole.value
        if changes and isinstance(whole, ast.Name):
            self.changed.add(whole.id)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._in_order(node.value, *node.targets)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.changed.add(node.target.id)
            self.visit(node.value)
        else:
            self._in_order(node.value, node.target)

    def visit_For(self, node: ast.For) -> None:
        self._in_order(node.iter, node.target, *node.body, *node.orelse)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._in_order(node.iter, node.target, *node.ifs)

    def _in_order(self, *nodes: ast.AST) -> None:
        for node in nodes:
            self.visit(node)

    def _inside(self, *nodes: ast.AST, given: Iterable[str] = ()) -> None:
        """What a function or comprehension assigns stays inside."""
        outside, self.stored = self.stored, self.stored | set(given)
        self._in_order(*nodes)
        self.stored = outside

    def _comprehension(self, node: ast.expr) -> None:
        parts = [getattr(node, part) for part in ("key", "value", "elt") if hasattr(node, part)]
        self._inside(*node.generators, *parts)

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _comprehension

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._inside(node.body, given=[a.arg for a in node.args.args])

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        arguments = [*node.args.args, *node.args.kwonlyargs]
        self._inside(*node.body, given=[a.arg for a in arguments])
        self.stored.add(node.name)


def line(files: Iterable[str]) -> str:
    """A sentence, in Markdown, that names files, or counts them where a folder has many."""
    files = list(files)
    count = Counter(os.path.dirname(file) for file in files)
    parts: dict[str, None] = {}
    for file in files:
        folder = os.path.dirname(file)
        few = "the published tables" if file == TABLES else f"`{file}`"
        parts[f"{count[folder]} files of `{folder}`" if count[folder] > SHOWN else few] = None
    return f"*From {', '.join(parts)}*"


def watch(shell) -> None:
    """Let the shell of a kernel publish, after every cell, the files that its output rests on."""
    trace, read = Trace(), []

    def opened(event: str, given: tuple) -> None:
        if event != "open" or not isinstance(given[0], str | os.PathLike) or given[1] == "w":
            return
        path = Path(os.path.abspath(given[0]))
        if path.is_relative_to(ROOT):
            name = path.relative_to(ROOT).as_posix()
            if name.startswith(FOLDERS):
                read.append((line_of_cell(), name))

    def ran(result) -> None:
        if result.success:
            modules = [k for k, v in shell.user_ns.items() if isinstance(v, ModuleType)]
            if files := trace.cell(result.info.raw_cell, read, modules):
                shell.display_pub.publish({MIME: files})
        read.clear()

    sys.addaudithook(opened)
    shell.events.register("post_run_cell", ran)


def line_of_cell() -> int:
    """The line that a cell is at, from 1; 0 outside of cells."""
    frame, line = sys._getframe(), 0
    while frame:
        if re.search(r"\bipykernel_\d", frame.f_code.co_filename):  # where kernels say cells are
            line = frame.f_lineno
        frame = frame.f_back
    return line
