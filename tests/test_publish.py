"""What the book prints: the values that were used, nothing of the run that made it."""

import ast
import os
import shutil
import subprocess
import sys
import threading
import types
from pathlib import Path

import nbformat
import pytest
from filelock import FileLock
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from acl_lib import publish
from acl_lib.explorers import media


def notebook(*codes, parameters=None):
    """One code cell per source; the cell of parameters comes first."""
    cells = [new_code_cell(code) for code in codes]
    if parameters is not None:
        cells.insert(0, new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    for i, cell in enumerate(cells):
        cell.id = str(i)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Folders for sources and copies in place of the project's; `write(name, nb)` adds a source."""
    monkeypatch.setattr(publish, "SOURCES", tmp_path / "notebooks")
    monkeypatch.setattr(publish, "COPIES", tmp_path / "book" / "notebooks")
    monkeypatch.setattr(publish, "MATHJAX", tmp_path / "book" / "vendor" / "tex-svg.js")
    monkeypatch.setattr(publish, "WELCOME", tmp_path / "book" / "vendor" / "welcome.html")
    monkeypatch.setattr(publish, "LEDGER", tmp_path / "book" / "vendor" / "ledger.csv")
    monkeypatch.setattr(publish, "RESULTS", tmp_path / "results")  # all records take 10 s to read
    record = publish.ROOT / "book" / "results" / "esc10" / "contrastive-all-seed0.json"
    (tmp_path / "results").mkdir()
    shutil.copy(record, tmp_path / "results")
    monkeypatch.setattr(publish, "code_digest", lambda: "code")
    monkeypatch.setenv("ACL_PUBLISH", "")  # publish sets it; it goes back after the test
    publish.SOURCES.mkdir()
    publish.WELCOME.parent.mkdir(parents=True)
    publish.WELCOME.write_text("<!-- code -->\n")  # current: drawing it takes a second

    def write(name, nb):
        nbformat.write(nb, publish.SOURCES / f"{name}.ipynb")

    return write


def copy(name):
    return publish.COPIES / f"{name}.ipynb"


def printed(path):
    """Text outputs of a copy."""
    cells = nbformat.read(path, as_version=4).cells
    return "".join(o.get("text", "") for c in cells for o in c.get("outputs", []))


@pytest.mark.parametrize(
    ("shown", "injected", "expected"),
    [
        ('corpus = "synthetic"', 'corpus = "esc10"', 'corpus = "esc10"'),
        ("seed: int = 0  # any", "# Parameters\nseed = 3", "seed: int = 3  # any"),
        ('a = "x=1"  # b = 2\nb = 2', 'b = 5\na = "y"', 'a = "y"  # b = 2\nb = 5'),
        ('word = "größer"  # ä', 'word = "kleiner"', 'word = "kleiner"  # ä'),
        ("a = 1\nb = a", "a = 2", "a = 2\nb = a"),
        ("a = 1", "other = 2", "a = 1"),
    ],
)
def test_values_are_folded_into_the_authors_cell(shown, injected, expected):
    assert publish.fold(shown, injected) == expected


def test_assigned_sees_names_with_plain_values_only():
    found = publish.assigned("a = 1\nb: int = 2\nc: int\nd, e = 1, 2\nf.x = 3\nprint(a)\na == 2")
    assert {k: ast.literal_eval(v) for k, v in found.items()} == {"a": 1, "b": 2}


def test_tidy_leaves_what_the_run_says_and_drops_what_the_run_was():
    nb = notebook("f", parameters="alpha = 0.3")
    nb.cells.insert(1, new_code_cell("alpha = 1", metadata={"tags": ["injected-parameters"]}))
    nb.cells.append(new_markdown_cell("[a](../book/intro.md) and [b](02_b.ipynb)"))
    code = nb.cells[2]
    code.metadata |= {"papermill": {"duration": 1.0}, "execution": {}, "tags": ["hide-input"]}
    view = "application/vnd.jupyter.widget-view+json"
    bar = "acl, all:   0%|          | 0/8000 [00:00<?, ?clip/s]"
    code.outputs = [
        new_output("stream", name="stderr", text="warning"),
        new_output("display_data", {"text/plain": bar, view: {}}),
        new_output("stream", name="stdout", text=f"<f at 0x7FFEab12> {publish.ROOT}{os.sep}runs"),
        new_output("display_data", {"text/html": "<b>", "text/plain": "<g at 0x1>", view: {}}),
    ]
    nb.metadata |= {"papermill": {}, "widgets": {}, "language_info": {"version": "3.11.7"}}
    publish.tidy(nb)
    parameters, code, text = nb.cells
    assert parameters.source == "alpha = 1"
    assert text.source == "[a](../intro.md) and [b](02_b.ipynb)"
    assert code.metadata == {"tags": ["hide-input"]}
    stream, display = code.outputs
    assert stream.text == "<f> runs"
    assert display.data == {"text/html": "<b>", "text/plain": "<g>"}
    assert nb.metadata.keys() == {"kernelspec", "language_info"}
    assert nb.metadata.language_info == {"name": "python"}


def test_the_digest_follows_what_the_author_wrote_the_values_and_the_code():
    def digest(nb=None, values=None, code="c"):
        return publish.digest(nb or notebook("f()"), values or {"profile": "quick"}, code)

    tagged, executed = notebook("f()"), notebook("f()")
    tagged.cells[0].metadata["tags"] = ["hide-input"]
    executed.cells[0].outputs = [new_output("stream", text="a")]
    executed.cells[0].execution_count = 3
    executed.metadata.kernelspec.display_name = "Python 3 (other)"
    changed = [
        digest(notebook("g()")),
        digest(tagged),
        digest(values={"profile": "laptop"}),
        digest(code="d"),
    ]
    assert len({digest(), *changed}) == 5
    assert digest(executed) == digest()


def test_a_run_gives_its_values_and_only_the_known_ones(project, capsys):
    where = "import os\nprint(corpus, n, os.path.basename(os.getcwd()))"
    project("01_a", notebook(where, parameters='corpus = "esc10"\nn = 3'))
    assert publish.main([]) == 0
    assert printed(copy("01_a")) == "synthetic 3 notebooks\n"
    first = copy("01_a").read_bytes()
    assert b"injected" not in first
    assert b"quick" not in first  # this notebook knows no profile
    assert publish.MATHJAX.stat().st_size > 2_000_000
    assert "1 executed, 0 current" in capsys.readouterr().out

    assert publish.main([]) == 0
    assert "0 executed, 1 current" in capsys.readouterr().out
    assert publish.main(["01_a", "--force"]) == 0
    assert copy("01_a").read_bytes() == first
    assert list(publish.COPIES.glob("*.running.ipynb")) == []


def test_a_run_that_pages_share_is_made_before_them_and_only_where_one_is_executed(
    project, monkeypatch
):
    made, code = [], 0

    def run(command, **options):
        made.append(command[command.index("run") + 1])
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(publish, "RUNS", {"01_a": "acl", "02_b": "acl", "03_c": "contrastive"})
    monkeypatch.setattr(publish.subprocess, "run", run)
    monkeypatch.setattr(publish, "publish", lambda path, copy, values, stamp: None)
    project("01_a", notebook("1"))
    project("02_b", notebook("1"))
    project("04_d", notebook("1"))
    assert publish.main([]) == 0 and made == ["acl"]
    assert publish.main(["04_d"]) == 0 and made == ["acl"]
    code = 3
    assert publish.main([]) == 3


def test_a_shared_run_is_that_of_its_pages():
    for name, recipe in publish.RUNS.items():
        source = (publish.SOURCES / f"{name}.ipynb").read_text(encoding="utf-8")
        assert f'recipe(\\"{recipe}\\", seed=seed' in source and "ex.run(settings)" in source


def test_a_failing_cell_is_named_and_nothing_finished_is_lost(project, capsys):
    project("01_a", notebook("print('fine')"))
    project("02_b", notebook("print('so far')", "1 / 0"))
    assert publish.main([]) == 1
    told = capsys.readouterr()
    running = publish.COPIES / "02_b.running.ipynb"
    assert "02_b.ipynb stopped: ZeroDivisionError: division by zero" in told.err
    assert str(running) in told.err
    assert "so far" in printed(running)
    assert "ZeroDivisionError" in running.read_text()
    assert copy("01_a").exists()
    assert not copy("02_b").exists()

    project("02_b", notebook("print('mended')"))
    assert publish.main([]) == 0
    assert "1 executed, 1 current" in capsys.readouterr().out
    assert not running.exists()


def test_the_moving_picture_is_drawn_again_when_its_code_has_changed(project, monkeypatch):
    publish.draw_welcome("code")
    assert publish.WELCOME.read_text() == "<!-- code -->\n"
    monkeypatch.setenv("ACL_PUBLISH", "1")
    publish.draw_welcome("new code")
    text = publish.WELCOME.read_text(encoding="utf-8")
    assert text.startswith("<!-- new code -->\n")
    assert '"play": true' in text
    assert text.count('<img alt="') == 1  # for a reader without scripts
    assert list(publish.WELCOME.parent.glob("*.part")) == []


def test_a_copy_that_plays_sounds_follows_the_corpus_that_is_there(project, monkeypatch, capsys):
    shown = ["synthetic"]
    monkeypatch.setattr(media, "make_shown", lambda vendor: shown[-1])
    project("01_a", notebook("print(1)"))
    project("12_b", notebook("sound_map = print\nsound_map(2)"))
    assert publish.main([]) == 0 and publish.main([]) == 0
    assert "0 executed, 2 current" in capsys.readouterr().out
    shown.append("esc10")
    assert publish.main([]) == 0
    assert "1 executed, 1 current" in capsys.readouterr().out

    def refuse(vendor):
        raise ValueError("other sounds")

    monkeypatch.setattr(media, "make_shown", refuse)
    assert publish.main(["01_a"]) == 0
    assert publish.main([]) == 2 and "other sounds" in capsys.readouterr().err


def test_copies_of_removed_notebooks_go(project):
    publish.COPIES.mkdir(parents=True)
    for name in ("09_gone.ipynb", "09_gone.running.ipynb"):
        (publish.COPIES / name).touch()
    assert publish.main([]) == 0
    assert list(publish.COPIES.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--corpus", "esc11"], "esc11"),
        (["--profile", "huge"], "huge"),
        (["--corpus", "esc10"], "esc10"),
    ],
)
def test_names_that_lead_nowhere_are_told_before_anything_runs(
    project, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.setenv("ACL_DATA", str(tmp_path / "empty"))
    project("01_a", notebook("print(corpus)", parameters='corpus = "synthetic"'))
    assert publish.main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not publish.COPIES.exists()


def test_a_corpus_of_speakers_is_no_corpus_for_the_pages(project, capsys, monkeypatch):
    voices = types.SimpleNamespace(task="verification")
    monkeypatch.setattr("acl_lib.datasets.open_corpus", lambda name: voices)
    project("01_a", notebook("print(corpus)", parameters='corpus = "synthetic"'))
    assert publish.main(["--corpus", "fsdd"]) == 2
    assert "`acl run nt_xent_am --corpus fsdd`" in capsys.readouterr().err
    assert not publish.COPIES.exists()


def test_an_unknown_notebook_is_told(project, capsys):
    with pytest.raises(SystemExit, match="2"):
        publish.main(["07_none"])
    assert "07_none" in capsys.readouterr().err


def test_a_new_record_is_a_reason_to_print_again(tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "RESULTS", tmp_path)
    before = publish.code_digest()
    (tmp_path / "run.json").write_text("{}")
    assert publish.code_digest() != before


def test_the_colab_cell_comes_with_the_address_and_stays_out_of_pages(project, monkeypatch):
    nb = notebook("2", parameters="a = 1")
    nb.cells.insert(0, new_markdown_cell("# Title"))
    nb.cells[0].id = "title"
    project("00_a", nb)
    monkeypatch.setattr(publish, "repository_url", lambda: "https://example.org/book")
    assert publish.main([]) == 0
    source = nbformat.read(publish.SOURCES / "00_a.ipynb", as_version=4)
    kinds = [cell.metadata.get("tags", []) for cell in source.cells]
    assert kinds == [[], ["colab"], ["parameters"], []]
    assert "git clone -q --depth 1 https://example.org/book " in source.cells[1].source
    assert publish.with_colab_cell(source, "https://example.org/book") == source
    assert not [c for c in nbformat.read(copy("00_a"), as_version=4).cells if "clone" in c.source]
    monkeypatch.setattr(publish, "repository_url", lambda: "")
    assert publish.main([]) == 0
    assert len(nbformat.read(publish.SOURCES / "00_a.ipynb", as_version=4).cells) == 3


def test_the_colab_cell_fetches_and_installs_in_colab_only(monkeypatch, tmp_path):
    asked = []
    shell = type("Shell", (), {"system": lambda self, line: asked.append(line)})
    code = publish.COLAB.format(url="https://example.org/book").replace("/content", str(tmp_path))
    (tmp_path / "project" / "notebooks").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    exec(code, {"get_ipython": shell})
    assert asked == []
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    exec(code, {"get_ipython": shell})
    assert [line.split()[0] for line in asked] == ["git", "pip"]
    assert Path.cwd() == tmp_path / "project" / "notebooks"


@pytest.mark.parametrize(
    ("text", "url"),
    [("title: a\n", ""), ("repository:\n  url: https://e.org/b\n", "https://e.org/b")],
)
def test_the_address_is_read_from_the_books_configuration(tmp_path, text, url):
    (tmp_path / "_config.yml").write_text(text)
    assert publish.repository_url(tmp_path / "_config.yml") == url


@pytest.fixture
def calls():
    """What publish does when Sphinx tells of an event, by the event."""
    asked = {}
    publish.setup(types.SimpleNamespace(connect=asked.__setitem__))
    return asked


@pytest.mark.parametrize(("url", "shown"), [("", {}), ("https://e.org/b", {"colab_url": "c"})])
def test_launch_buttons_need_an_address(calls, url, shown):
    options = {"repository_url": url, "launch_buttons": {"colab_url": "c"}}
    calls["config-inited"](None, types.SimpleNamespace(html_theme_options=options))
    assert options["launch_buttons"] == shown


def test_the_policy_of_a_page_comes_before_its_other_tags(calls):
    context = {"metatags": "<meta name='other' />"}
    calls["html-page-context"](None, "intro", "page.html", context, None)
    assert context["metatags"].startswith('<meta http-equiv="Content-Security-Policy" content="')
    assert context["metatags"].endswith("<meta name='other' />")


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_damaged_copy_is_executed_again(project, capsys):
    project("01_a", notebook("print('fine')"))
    assert publish.main([]) == 0
    whole = copy("01_a").read_bytes()
    for length in (0, 10, len(whole) // 2):
        copy("01_a").write_bytes(whole[:length])
        assert publish.copied_digest(copy("01_a")) is None
        assert "01_a.ipynb is damaged: executing" in capsys.readouterr().err
    assert publish.main([]) == 0
    assert "1 executed, 0 current" in capsys.readouterr().out
    assert copy("01_a").read_bytes() == whole


def test_a_source_that_is_no_notebook_or_went_away_is_told(project, capsys, monkeypatch):
    (publish.SOURCES / "01_a.ipynb").write_text('{"cells": [')
    assert publish.main([]) == 2
    assert "01_a.ipynb is no notebook" in capsys.readouterr().err
    (publish.SOURCES / "01_a.ipynb").unlink()
    project("02_b", notebook("1"))

    def vanish():
        (publish.SOURCES / "02_b.ipynb").unlink(missing_ok=True)
        return "code"

    monkeypatch.setattr(publish, "code_digest", vanish)
    assert publish.main([]) == 2
    told = capsys.readouterr().err
    assert "No such file" in told and "02_b.ipynb" in told and told.count("\n") == 1
    assert not list(publish.COPIES.glob("*"))


def test_an_authors_notebook_is_not_lost_where_the_disk_is_full(project, capsys, monkeypatch):
    resource = pytest.importorskip("resource", reason="file size limits are POSIX")
    nb = notebook("2")
    nb.cells.insert(0, new_markdown_cell("# Title", id="title"))
    project("00_a", nb)
    publish.copy_mathjax()
    before = (publish.SOURCES / "00_a.ipynb").read_bytes()
    monkeypatch.setattr(publish, "repository_url", lambda: "https://example.org/book")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        assert publish.main([]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    told = capsys.readouterr().err
    assert "The book cannot be written" in told and "too large" in told and "run it again" in told
    assert (publish.SOURCES / "00_a.ipynb").read_bytes() == before
    assert [p.name for p in publish.SOURCES.iterdir()] == ["00_a.ipynb"]


def test_a_second_build_says_that_it_waits_and_then_has_nothing_to_do(project, capsys):
    project("01_a", notebook("print('fine')"))
    assert publish.main([]) == 0
    lock = FileLock(publish.COPIES.with_name(".publish.lock"))
    lock.acquire()
    codes = []
    second = threading.Thread(target=lambda: codes.append(publish.main([])))
    second.start()
    said = ""
    while "waiting for it" not in said and second.is_alive():
        said += capsys.readouterr().err
    assert second.is_alive() and not codes
    lock.release()
    second.join()
    assert codes == [0] and "0 executed, 1 current" in capsys.readouterr().out
