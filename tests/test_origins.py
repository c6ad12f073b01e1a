"""Which files an output rests on: asked of small programs, of a real kernel, and of every page."""

import ast
import json
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from acl_lib import publish
from acl_lib.origins import TABLES, Names, Trace, line
from acl_lib.publish import COPIES, ROOT, SOURCES

A, B = "book/results/a.json", "book/results/b.json"


def rests(*cells, modules=()):
    """What the output of the last cell rests on; `load("a")` is taken to read a.json."""
    trace = Trace()
    for source in cells:
        read = [
            (n, f"book/results/{name}.json")
            for n, text in enumerate(source.splitlines(), 1)
            for name in re.findall(r'load\("(\w)"\)', text)
        ]
        found = trace.cell(source, read, modules)
    return found


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (['load("a")'], [A]),
        (['x = load("a")'], []),  # shows nothing
        (['x = load("a")', "y = x + 1", "y"], [A]),
        (['x = load("a")\ny = 1\ny'], []),
        (['x = load("a")', "x = 1", "x"], []),
        (['x = load("a")', "x = x + 1", "x"], [A]),
        (['x = load("a")', "n = 0", "n += x", "n"], [A]),
        (['x = load("a")', "rows = {}\nrows['k'] = x", "rows"], [A]),
        (['x = load("a")', "rows = []", "for r in x:\n    rows.append(r)", "rows"], [A]),
        (['x = load("a")', "for r in x:\n    print(r)"], [A]),
        (['x = load("a")', "for x in range(3):\n    print(x)"], []),
        (['x = load("a")', "y = [x for x in range(3)]", "y"], []),
        (['x = load("a")', "y = [k for k in x]", "y"], [A]),
        (['x = load("a")', "y = sum(k for k in x)", "y"], [A]),
        (['x = load("a")', "y = {k for k in x if k}", "y"], [A]),
        (['x = load("a")', "y = {k: v for k, v in x.items()}", "k = 1", "k"], []),
        (['x = load("a")', "def f(x):\n    return x", "f(1)"], []),
        (['x = load("a")', "def f(k):\n    return x[k]", "f(1)"], [A]),
        (['x = load("a")', "f = lambda x: x", "f(1)"], []),
        (['x = load("a")', "f = lambda k: x[k]", "f(1)"], [A]),
        (['x, y = load("a"), load("b")', "x"], [A, B]),  # one statement: it is not told apart
        (['x = load("a")\ny = load("b")', "x"], [A]),
        (['x = load("a")\nz = load("b")', "z + x"], [B, A]),
        (['x = [load("a"), load("b")]', "x"], [A, B]),
        (['x = [load("a"), load("b")]', 'x["b"]'], [B]),
        (['x = [load("a"), load("b")]', 'y = x["a"]', "y"], [A]),
        (["rows = TABLES['systems'].rows", "rows"], [TABLES]),
        (["rows = published.TABLES['systems'].rows", "rows"], [TABLES]),
        (['draw.update(load("a"))', "draw.f(1)"], []),
    ],
)
def test_an_output_rests_on_what_its_names_hold(cells, expected):
    assert rests(*cells, modules={"draw"}) == expected


def test_names_are_taken_in_the_order_in_which_a_statement_runs():
    names = Names(ast.parse("for k, v in m.items():\n    w = k\n    use(w, v, u)").body[0])
    assert set(names.loaded) == {"m", "use", "u"} and names.stored == {"k", "v", "w"}


def test_a_line_counts_where_a_folder_has_many():
    many = [f"book/results/r/{n}.json" for n in range(5)]
    assert line([A, TABLES, A]) == f"*From `{A}`, the published tables*"
    assert line([*many, A]) == f"*From 5 files of `book/results/r`, `{A}`*"
    assert line(many[:4]).count("`") == 8


def test_a_kernel_sees_who_reads_what(tmp_path):
    record = next(p for p in sorted((ROOT / "book" / "results").glob("*.json")))
    cells = [
        f"def read():\n    with open({str(record)!r}) as file:\n        return file.read()",
        "text = read()\nlength = 3",
        "len(text)",
        "length",
        f"open({str(tmp_path / 'mine.json')!r}, 'w').close()\nprint(1)",
        "text;",
    ]
    nb = new_notebook(cells=[new_code_cell(source) for source in cells])
    nb.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nb, tmp_path / "a.ipynb")
    publish.publish(tmp_path / "a.ipynb", tmp_path / "copy" / "a.ipynb", {}, "x")
    copy = nbformat.read(tmp_path / "copy" / "a.ipynb", as_version=4)
    assert [[o.output_type for o in cell.outputs] for cell in copy.cells] == [
        *([[]] * 2),
        ["execute_result", "display_data"],
        ["execute_result"],
        ["stream"],
        [],
    ]
    told = copy.cells[2].outputs[1]
    assert told.metadata.origins == [record.relative_to(ROOT).as_posix()]
    assert told.data == {"text/markdown": f"*From `book/results/{record.name}`*"}


def told(copy):
    """The files that each output of an executed page names."""
    return [
        output.metadata.origins
        for cell in nbformat.read(copy, as_version=4).cells
        for output in cell.get("outputs", [])
        if "origins" in output.get("metadata", {})
    ]


def test_what_outputs_name_is_there():
    """An output that names nothing was calculated on the page, from its parameters."""
    for copy in COPIES.glob("*.ipynb"):
        assert [f for line in told(copy) for f in line if not (ROOT / f).is_file()] == []


def test_pages_that_draw_records_say_so():
    """Where a page's own code spells out a record or a plan, some output rests on it."""
    for path in sorted(SOURCES.glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = "".join(line for c in cells if c["cell_type"] == "code" for line in c["source"])
        spelled = [p for p in (ROOT / "book" / "results").glob("*.json") if p.name in code]
        spelled += [p for p in (ROOT / "grids").glob("*.yaml") if p.name in code]
        if not (COPIES / path.name).exists():
            pytest.skip("`make book` makes the executed copies")
        files = {file for line in told(COPIES / path.name) for file in line}
        assert {p.relative_to(ROOT).as_posix() for p in spelled} <= files, path.name
        assert ("TABLES" in code) == (TABLES in files), path.name
