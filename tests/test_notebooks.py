"""Rules that every notebook and every executed copy keeps; nbval, not this file, executes them.

Each rule is tried on a specimen that keeps it and on one that breaks it.
"""

import ast
import re
import statistics
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from acl_lib.publish import (
    COPIES,
    ROOT,
    SOURCES,
    assigned,
    parameter_cell,
    repository_url,
    with_colab_cell,
)

HEAD = """# A tone

**Question.** What is in a tone?

**You will see** one line of numbers.

**You need** nothing; 3 seconds and 0.4 GB of memory in `quick`."""
TAIL = """## What we saw

Numbers.

## Exercises

1. One.

<details>
<summary><b>Solution</b></summary>

One.

</details>

2. Two.

<details>
<summary><b>Solution</b></summary>

Two.

</details>

## Sources

None."""


def specimen():
    """The smallest notebook that keeps every rule."""
    nb = new_notebook(
        cells=[
            new_markdown_cell(HEAD),
            new_code_cell("import math"),
            new_code_cell('profile = "quick"', metadata={"tags": ["parameters"]}),
            new_markdown_cell("Expect a half."),
            new_code_cell("level = math.sin(math.pi / 6)\nlevel"),
            new_markdown_cell(TAIL),
        ],
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        },
    )
    for i, cell in enumerate(nb.cells):
        cell.id = str(i)
    return nb


def code(nb):
    """The code cells that a page shows."""
    cells = [cell for cell in nb.cells if cell.cell_type == "code"]
    return [cell for cell in cells if "colab" not in cell.metadata.get("tags", [])]


def prose(nb):
    return "\n\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")


def stripped(nb):
    nbformat.validate(nb)
    assert nb == with_colab_cell(nb, repository_url()), "`python3 run.py book` writes that cell"
    assert not [c for c in code(nb) if c.outputs or c.execution_count], "run nbstripout on it"
    assert nb.metadata.kernelspec.name == "python3"
    assert not set(nb.metadata) - {"kernelspec", "language_info"}, "run nbstripout on it"


def opening(nb):
    """Title, question, what there is to see, and what one needs of time and memory too."""
    first = nb.cells[0].source
    assert nb.cells[0].cell_type == "markdown"
    assert re.match(r"# \S", first)
    starts = [line.strip(" *-").lower() for line in first.splitlines()[1:] if line.strip()]
    for words in ("question", "(what )?you will see", "(what )?you need"):
        assert any(re.match(words, line) for line in starts), f"no line starts with {words!r}"
    assert re.search(r"\b(second|minute)s?\b", first), "how long does it run in quick?"
    assert re.search(r"\d GB\s+of\s+memory", first), "how much memory does it take?"
    assert len(re.findall(r"^# ", prose(nb), re.M)) == 1, "one title"


def imports_then_parameters(nb):
    first, second, *_ = code(nb)
    kinds = {type(node) for node in ast.parse(first.source).body}
    assert kinds <= {ast.Import, ast.ImportFrom}, "the first code cell holds the imports"
    assert len(first.source.splitlines()) <= 12
    assert "parameters" in second.metadata.get("tags", []), "then come the parameters"
    assert sum("parameters" in c.metadata.get("tags", []) for c in nb.cells) == 1


def parameters_papermill_can_read(nb):
    import papermill

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.ipynb")
        nbformat.write(nb, path)
        known = papermill.inspect_notebook(path)
    # a comment with an equals sign, or a value over two lines, hides a parameter from papermill
    assert set(known) == set(assigned(parameter_cell(nb).source))


def short_cells(nb):
    lines = [[line for line in cell.source.splitlines() if line.strip()] for cell in code(nb)]
    assert statistics.median(map(len, lines)) <= 6
    assert max(map(len, lines)) <= 20
    assert max(len(line) for cell in lines for line in cell) <= 78


def enough_said(nb):
    """Eight to twenty words for a line of code; equations and tags are not words."""
    words = re.sub(r"\$\$.*?\$\$|<[^>]*>", "", prose(nb), flags=re.S).split()
    lines = [line for cell in code(nb) for line in cell.source.splitlines() if line.strip()]
    assert 8 <= len(words) / len(lines) <= 20, f"{len(words)} words for {len(lines)} lines"


def something_to_see(nb):
    for cell in code(nb)[2:]:
        last = ast.parse(cell.source).body[-1]
        while isinstance(last, (ast.For, ast.With)):
            last = last.body[-1]
        assert isinstance(last, (ast.Expr, ast.Assert)), f"nothing to see after:\n{cell.source}"


def few_definitions(nb):
    kinds = (ast.FunctionDef, ast.ClassDef)
    nodes = [n for cell in code(nb) for n in ast.walk(ast.parse(cell.source))]
    assert sum(isinstance(node, kinds) for node in nodes) <= 3, "they belong into acl_lib"


def no_plumbing(nb):
    for cell in code(nb):
        plumbing = r"^\s*[!%]|\bwarnings\.|\bsys\.path\b|\bpip\b|\bchdir\b"
        assert not re.search(plumbing, cell.source, re.M), cell.source


def markup_that_jupyterlab_shows(nb):
    directive = re.search(r"^:::|^```+\{|\{(cite|doc|ref|eq|glue)[:\w]*\}`", prose(nb), re.M)
    assert not directive, f"{directive} is for the pages in book/"


def equations_that_the_page_can_number(nb):
    for equation in re.findall(r"\$\$.*?\$\$", prose(nb), re.S):
        # Sphinx wraps an equation that holds \\\\ into an environment that takes no \\tag
        assert "\\tag" not in equation or "\\\\" not in equation, f"use \\cr in {equation}"


def ending(nb):
    heads = re.findall(r"^## (.+?)\s*$", prose(nb), re.M)
    assert heads[-3:] == ["What we saw", "Exercises", "Sources"]
    exercises = prose(nb).split("\n## Exercises")[1]
    folds = exercises.count("<details>")
    assert folds == exercises.count("</details>")
    assert folds == len(re.findall(r"<details>\s*<summary>[^\n]+</summary>\n\n", exercises))
    assert 2 <= folds <= 4, "two to four exercises, each with a folded solution"


RULES = [
    stripped,
    opening,
    imports_then_parameters,
    parameters_papermill_can_read,
    short_cells,
    enough_said,
    something_to_see,
    few_definitions,
    no_plumbing,
    markup_that_jupyterlab_shows,
    equations_that_the_page_can_number,
    ending,
]
WRITTEN = [None, *sorted(SOURCES.glob("*.ipynb"))]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem if path else "specimen")
def test_notebook(path, rule):
    rule(nbformat.read(path, as_version=4) if path else specimen())


@pytest.mark.parametrize(
    ("rule", "cell", "source"),
    [
        (opening, 0, HEAD.replace("# A", "A")),
        (opening, 0, HEAD.replace("You need", "Bring")),
        (opening, 0, HEAD.replace("3 seconds", "a while")),
        (opening, 0, HEAD.replace("0.4 GB", "little")),
        (opening, 3, "# A second title"),
        (imports_then_parameters, 1, "x = 3"),
        (imports_then_parameters, 1, "import math\n" * 13),
        (parameters_papermill_can_read, 2, 'profile = "quick"  # or n = 3'),
        (short_cells, 4, "1\n" * 21),
        (short_cells, 4, "x" * 79),
        (enough_said, 4, "level\n" * 12),
        (enough_said, 3, "word " * 80),
        (something_to_see, 4, "level = 3"),
        (something_to_see, 4, "for i in range(3):\n    level = i"),
        (few_definitions, 4, "\n".join(f"def f{i}(): pass" for i in range(4))),
        (no_plumbing, 4, "import warnings\nwarnings.simplefilter('ignore')"),
        (no_plumbing, 4, "!pip install acl"),
        (no_plumbing, 4, "import sys\nsys.path.append('..')"),
        (markup_that_jupyterlab_shows, 3, "```{note}\nA\n```"),
        (markup_that_jupyterlab_shows, 3, "as {cite:p}`wang2023acl` says"),
        (equations_that_the_page_can_number, 3, "$$ a \\\\ b \\tag{1.1} $$"),
        (ending, 5, TAIL.replace("## Sources", "## Links")),
        (ending, 5, TAIL.replace("</details>", "", 1)),
        (ending, 5, TAIL.replace("<details>", "").replace("</details>", "")),
    ],
)
def test_a_broken_rule_is_found(rule, cell, source):
    nb = specimen()
    nb.cells[cell].source = source
    with pytest.raises(AssertionError):
        rule(nb)


def test_outputs_left_in_a_source_are_found():
    nb = specimen()
    nb.cells[4].outputs = [new_output("stream", text="0.5")]
    with pytest.raises(AssertionError):
        stripped(nb)


# ---- the copies that acl_lib.publish has executed, if there are any


def fit_to_print(nb):
    for cell in code(nb):
        for output in cell.outputs:
            may_fail = "raises-exception" in cell.metadata.get("tags", [])
            assert output.output_type != "error" or may_fail
            data = output.get("data", {})
            if {"image/png", "image/svg+xml", "image/jpeg"} & set(data):
                alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
                assert len(alt) > 20, f"a figure without alt text:\n{cell.source}"
            assert not re.search(r'(src|href)="(https?:)?//', data.get("text/html", ""))
            widget = "application/vnd.jupyter.widget-view+json"
            assert widget not in data, "blank on the page: it needs a kernel"
            text = "".join([output.get("text", ""), *map(str, data.values())])
            assert not re.search(r" at 0x[0-9a-f]+", text)
            for folder in {ROOT, Path.home()} - {Path(ROOT.anchor)}:
                assert str(folder) not in text, "where the book was built is nobody's business"


def test_copies_are_fit_to_print():
    for path in sorted(COPIES.glob("*.ipynb")):
        if not path.name.endswith(".running.ipynb"):
            assert path.stat().st_size < 1_500_000, path.name
            fit_to_print(nbformat.read(path, as_version=4))


@pytest.mark.parametrize(
    "output",
    [
        new_output("error", ename="E", evalue="e", traceback=[]),
        new_output("display_data", {"image/png": "aGk="}),
        new_output("display_data", {"text/html": '<script src="https://a.b/c.js">'}),
        new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}}),
        new_output("stream", text=f"written to {ROOT / 'runs'}"),
        new_output("display_data", {"text/plain": "<object at 0x12ab>"}),
    ],
    ids=["error", "no alt text", "remote script", "dead widget", "absolute path", "address"],
)
def test_an_unfit_output_is_found(output):
    nb = specimen()
    nb.cells[4].outputs = [output]
    with pytest.raises(AssertionError):
        fit_to_print(nb)
