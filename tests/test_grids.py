"""A grid is read as it is meant, or refused with the name of its file and of the fault."""

import re
from pathlib import Path

import nbformat
import pytest
import torch

from acl_lib import config
from acl_lib.config import Recipe, recipe
from acl_lib.grids import Findings, Grid, find, flat, label
from acl_lib.records import Record
from acl_lib.statistics import seed_interval
from acl_lib.verification import pack_rates

ROOT = Path(__file__).resolve().parents[1]
COMMITTED = sorted((ROOT / "grids").glob("*.yaml"))
SWEEPS = ROOT / "book" / "results" / "sweeps"
PLAIN = """question: Is it so?
recipe: acl
settings: {width: 8, temperature: 0.5}
arms: {NT-Xent: {alpha: 1.0}, ACL: {alpha: 0.3}}
seeds: [0, 1]
"""


@pytest.fixture
def write(tmp_path):
    """A grid's file with this text."""

    def written(text: str, name: str = "mine.yaml") -> Path:
        path = tmp_path / "grids" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return written


@pytest.fixture
def notebook(tmp_path):
    """A notebook with two parameters, beside the folder of grids."""
    cells = [nbformat.v4.new_code_cell("alpha = 0.5\nseed = 0"), nbformat.v4.new_code_cell("alpha")]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nb = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    path = tmp_path / "page.ipynb"
    nbformat.write(nb, path)
    return path


NOTEBOOK = """question: Is it so?
notebook: ../page.ipynb
arms: {alpha: [0.1, 0.9]}
seeds: [0, 1]
"""


# --- what is read ---------------------------------------------------------------------------------


def test_a_grid_is_arms_times_conditions_times_seeds_with_seeds_outermost(write):
    grid = Grid.read(write(PLAIN + "conditions: {epochs: [1, 2]}\n"))
    cells = [(c.seed, c.condition, c.arm) for c in grid.cells]
    assert cells == [
        (seed, condition, arm)
        for seed in (0, 1)
        for condition in ("epochs 1", "epochs 2")
        for arm in ("NT-Xent", "ACL")
    ]
    assert (grid.name, grid.arms) == ("mine", ("NT-Xent", "ACL"))
    assert grid.conditions == ("epochs 1", "epochs 2")
    assert (grid.baseline, grid.reader, grid.question) == ("NT-Xent", "linear", "Is it so?")
    last = grid.cells[-1].recipe
    assert last == recipe("acl", width=8, temperature=0.5, alpha=0.3, epochs=2, seed=1)
    assert grid.found() == {}


def test_a_setting_with_a_list_stands_for_an_arm_a_value(write):
    grid = Grid.read(write(PLAIN.replace("NT-Xent: {alpha: 1.0}", "alpha: [1, 0.5, 0.25]")))
    assert grid.arms == ("alpha 1", "alpha 0.5", "alpha 0.25", "ACL")
    assert [c.recipe.loss.alpha for c in grid.cells[:4]] == [1.0, 0.5, 0.25, 0.3]
    assert grid.baseline == "alpha 1"


def test_an_arm_goes_before_a_condition_and_both_before_the_settings(write):
    text = PLAIN.replace("ACL: {alpha: 0.3}", "ACL: {recipe: supervised_acl, temperature: 2}")
    grid = Grid.read(write(text + "conditions: {a: {temperature: 1, width: 16}}\n"))
    one, two = (c.recipe for c in grid.cells[:2])
    assert (one.name, one.loss.temperature, one.train.width) == ("acl", 1.0, 16)
    assert (two.name, two.loss.temperature, two.loss.alpha) == ("supervised_acl", 2.0, 0.7)


def test_seeds_settings_and_folder_can_be_others_than_the_files(write, tmp_path):
    path = write(PLAIN)
    grid = Grid.read(path, seeds=[7], records=tmp_path / "else", epochs=3)
    assert [c.seed for c in grid.cells] == [7, 7]
    assert {c.recipe.train.epochs for c in grid.cells} == {3}
    assert all(c.target.is_relative_to(tmp_path / "else") for c in grid.cells)
    here = Grid.read(path).cells[0].target
    assert here == path.parent / "mine" / "synthetic-quick" / here.name
    there = Grid.read(write(PLAIN + "records: ../kept\n")).cells[0].target
    assert there.resolve().parent == tmp_path / "kept" / "synthetic-quick"


def test_a_record_is_named_by_what_differs_from_the_plain_recipe(write):
    assert [c.name for c in Grid.read(write(PLAIN)).cells[:2]] == [
        "acl,alpha=1,temperature=0.5,width=8,seed=0",
        "acl,temperature=0.5,width=8,seed=0",
    ]
    assert label(recipe("acl", alpha=0.3)) == "acl,seed=0"
    fine = [label(recipe("acl", alpha=alpha)) for alpha in (0.1234567, 0.12345671, 1e-7)]
    assert fine == [
        "acl,alpha=0.1234567,seed=0",
        "acl,alpha=0.12345671,seed=0",
        "acl,alpha=1e-07,seed=0",
    ]
    assert label(Recipe(name="own", seed=3)) == "own,seed=3"  # from a file
    assert set(flat(Recipe())) >= {"name", "corpus", "alpha", "width", "hop", "outside", "n_mels"}


def test_every_cell_lies_in_one_part(write):
    grid = Grid.read(write(PLAIN + "conditions: {epochs: [1, 2, 3]}\n"))
    for n in (1, 2, 5, 12, 20):
        parts = [grid.part(k, n) for k in range(1, n + 1)]
        assert sorted(c.name for part in parts for c in part) == sorted(c.name for c in grid.cells)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for k, n in ((3, 2), (0, 2), (-1, 2), (1, 0)):
        with pytest.raises(ValueError, match=f"K/N with K from 1 to N.*got {k}/{n}"):
            grid.part(k, n)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("seeds: [0, 1]", "seed: [0, 1]", "unknown seed; a grid has question, rule, detectable"),
        ("question: Is it so?\n", "", "question is missing"),
        ("seeds: [0, 1]\n", "", "seeds is missing"),
        ("recipe: acl", "", "a recipe or a notebook: one of them"),
        ("recipe: acl", "recipe: acl\nnotebook: a.ipynb", "a recipe or a notebook: one of them"),
        ("recipe: acl", "recipe: alc", "unknown recipe 'alc'; there are contrastive, acl"),
        ("width", "wide", "unknown setting 'wide'; there are name"),
        ("width: 8", "width: 4", "need width >= 8; got 4"),
        ("width: 8", "width: eight", "width must be a whole number; got 'eight'"),
        ("width: 8", "name: mine", "name"),
        ("alpha: 0.3", "alpha: 3", "need alpha in [0, 1]"),
        ("alpha: 0.3", "alhpa: 0.3", "unknown setting 'alhpa'"),
        ("{alpha: 0.3}", "{alpha: 0.3, seed: 3}", "seed is no setting of a grid"),
        ("width: 8", "seed: 8", "seed is no setting of a grid"),
        (
            "{alpha: 0.3}",
            "0.3",
            "arms: ACL must be names with values, such as {alpha: 0.5}; got 0.3",
        ),
        ("{width: 8, temperature: 0.5}", "[width]", "settings must be names with values"),
        ("{NT-Xent: {alpha: 1.0}, ACL: {alpha: 0.3}}", "[0.1, 0.2]", "arms must be names"),
        ("{NT-Xent: {alpha: 1.0}, ACL: {alpha: 0.3}}", "", "there are no arms"),
        ("{NT-Xent: {alpha: 1.0}, ACL: {alpha: 0.3}}", "{alpha: []}", "there are no arms"),
        ("{alpha: 0.3}", "{alpha: 1}", "'NT-Xent' and 'ACL' are one and the same run, acl,alpha=1"),
        ("ACL:", "NT-Xent:", "'NT-Xent' stands twice below line 3"),
        ("[0, 1]", "3", "seeds must be a list of whole numbers, such as [0, 1]; got 3"),
        ("[0, 1]", "[]", "seeds must be a list"),
        ("[0, 1]", "[0, one]", "seeds must be a list of whole numbers"),
        ("[0, 1]", "[0.5]", "seeds must be a list of whole numbers"),
        ("[0, 1]", "[0, 0]", "are one and the same run"),
        ("[0, 1]", "[-1]", "need seed in 0 to"),
        ("seeds:", "baseline: CE\nseeds:", "baseline 'CE' is no arm; there are ['NT-Xent', 'ACL']"),
        ("seeds:", "reader: lynx\nseeds:", "unknown reader 'lynx'; there are linear, knn"),
        ("seeds:", "conditions: {temperature: [2]}\nseeds", "this is no YAML: "),
        ("seeds: [0, 1]", "seeds: [0, 1", "this is no YAML: "),
        ("Is it so?", "[is, it]", "question must be text; got ['is', 'it']"),
        ("Is it so?", "!!binary aGk=", "question must be text; got b'hi'"),
        ("recipe: acl", "recipe: [acl]", "recipe must be text; got ['acl']"),
        ("seeds:", "rule: .nan\nseeds:", "rule must be text; got nan"),
        ("seeds:", "cost: 3\nseeds:", "cost must be text; got 3"),
        ("seeds:", 'records: "a\\0b"\nseeds:', "records must be text; got 'a\\x00b'"),
        ("seeds:", "records: 2020-01-01\nseeds:", "records must be text; got datetime"),
        ("seeds:", "1: 2\nseeds:", "unknown 1; a grid has"),
        ("width: 8", "width: !!python/object/apply:os.getcwd []", "this is no YAML: "),
        ("width: 8", "width: 8, width: 16", "'width' stands twice"),
        ("width: 8", "width: null", "width must be a whole number; got None"),
        ("width: 8", "width: true", "width must be a whole number; got True"),
        ("width: 8", f"width: {'9' * 30}", "width must be below 2**63; got 999"),
        ("width: 8", "drops: [.nan]", "drops must be a list of numbers; got [nan]"),
        ("width: 8", "mel: {n_mels: 3}", "unknown setting 'mel'"),
        ("temperature: 0.5", "temperature: .nan", "temperature must be a finite number; got nan"),
        ("temperature: 0.5", "temperature: -.inf", "temperature must be a finite number; got -inf"),
        ("temperature: 0.5", f"temperature: {'9' * 400}", "temperature must be a finite number"),
        (
            "temperature: 0.5",
            "temperature: '0.5'",
            "temperature must be a finite number; got '0.5'",
        ),
        ("temperature: 0.5", "temperature: -1", "need temperature > 0"),
        ("[0, 1]", "[true]", "seeds must be a list of whole numbers"),
        ("[0, 1]", f"[{2**63}]", "seed must be below 2**63"),
        ("{alpha: 0.3}", "&a {b: *a}", "line 4: *a refers to another place"),
        ("[0, 1]", "&a [0, *a]", "line 5: *a refers to another place"),
        ("Is it so?", "Is it\x07", "this is no YAML: "),
        (PLAIN, PLAIN + "---\n" + PLAIN, "this is no YAML: "),
        (PLAIN, "? [1]\n: 2\n", "this is no YAML: "),
        (PLAIN, "[" * 2000, "this is no grid: one thing lies in another without end"),
        (PLAIN, "{a: " * 2000, "this is no grid: one thing lies in another without end"),
        (PLAIN, "just words", "this is no grid: a grid has question"),
        (PLAIN, "", "this is no grid"),
    ],
)
def test_a_fault_is_named_with_its_file(write, old, new, says):
    assert old in PLAIN
    path = write(PLAIN.replace(old, new, 1))
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        Grid.read(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_few_lines_that_stand_for_a_billion_words_fill_no_memory(write):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{b}: &{b} [{', '.join(10 * ['*' + a])}]"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    path = write("question: Is it so?\n" + "\n".join(lines))
    with pytest.raises(ValueError, match=r"line 3: \*a refers to another place: write out"):
        Grid.read(path)


def test_a_mark_and_line_ends_of_another_system_change_nothing(write):
    plain = Grid.read(write(PLAIN))
    raw = PLAIN.replace("\n", "\r\n").encode("utf-8-sig")
    path = write(PLAIN)
    path.write_bytes(raw)
    assert Grid.read(path).cells == plain.cells
    for other in (PLAIN.replace("Is", "\u00cds").encode("latin-1"), PLAIN.encode("utf-16")):
        path = write(PLAIN)
        path.write_bytes(other)
        with pytest.raises(ValueError, match=re.escape(f"{path}: ")):
            Grid.read(path)


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.yaml"):
        Grid.read(tmp_path / "gone.yaml")


def test_a_setting_that_would_change_nothing_is_refused(write):
    path = write(PLAIN + "conditions: {epochs: [1, 2]}\n")
    for settings in ({"alpha": 0.5}, {"epochs": 3}):
        with pytest.raises(ValueError, match=f"{next(iter(settings))} is what the grid compares"):
            Grid.read(path, **settings)
    with pytest.raises(ValueError, match="seed is no setting"):
        Grid.read(path, seed=3)


# --- records --------------------------------------------------------------------------------------


def written(cell, **changes):
    """A record of a cell's recipe, of which only that matters."""
    empty = {
        **{key: {} for key in "corpus results geometry cost versions".split()},
        **{key: [] for key in "history selection splits".split()},
        **{key: "" for key in "code commit".split()},
    }
    record = Record(**empty | {"recipe": cell.recipe, "path": cell.target} | changes)
    record.write()
    return record


def test_records_are_found_by_arm_condition_and_seed(write):
    grid = Grid.read(write(PLAIN))
    made = written(grid.cells[2])
    assert grid.found() == {("NT-Xent", ""): {1: made}}
    assert find(grid.cells[0]) is None and find(grid.cells[2]) == made


def test_another_recipe_or_half_a_file_in_a_records_place_is_told(write):
    one, two, *_ = Grid.read(write(PLAIN)).cells
    written(two, path=one.target)
    with pytest.raises(ValueError, match="another recipe than its name says; move it away"):
        find(one)
    one.target.write_text("{")
    with pytest.raises(ValueError, match=r"is no record of a run.*; move it away"):
        find(one)


def test_grids_that_share_a_run_share_its_record(write):
    first = Grid.read(write(PLAIN + "records: ../kept\n"))
    text = PLAIN.replace("NT-Xent: {alpha: 1.0}", "alpha: [1, 0]") + "records: ../kept\n"
    second = Grid.read(write(text, "other.yaml"))
    shared = {c.target for c in first.cells} & {c.target for c in second.cells}
    assert len(shared) == 4  # alpha 1 and 0.3, two seeds
    keys = {c.target: c.key() for c in first.cells}
    assert all(keys[c.target] == c.key() for c in second.cells if c.target in shared)
    assert len(set(keys.values())) == 4


# --- notebooks ------------------------------------------------------------------------------------


def test_a_notebooks_settings_are_its_parameters(write, notebook, tmp_path):
    grid = Grid.read(write(NOTEBOOK))
    assert [c.name for c in grid.cells] == [
        "page,alpha=0.1,seed=0",
        "page,alpha=0.9,seed=0",
        "page,alpha=0.1,seed=1",
        "page,alpha=0.9,seed=1",
    ]
    first = grid.cells[0]
    assert first.recipe is None and first.parameters == {"alpha": 0.1, "seed": 0}
    assert first.notebook.resolve() == notebook
    assert first.target == tmp_path / "grids" / "mine" / "page,alpha=0.1,seed=0.ipynb"
    assert find(first) is None and grid.found() == {}
    keys = [c.key() for c in grid.cells]
    assert len(set(keys)) == 4
    notebook.write_text(notebook.read_text().replace("alpha = 0.5", "alpha = 0.6"))
    assert not {c.key() for c in grid.cells} & set(keys)  # another notebook


def test_a_parameter_that_a_notebook_lacks_is_refused_by_name(write, notebook):
    path = write(NOTEBOOK + "settings: {epochs: 3, width: 2}\n")
    with pytest.raises(
        ValueError, match=r"page.ipynb has no parameter epochs, width; it has alpha, seed"
    ):
        Grid.read(path)
    notebook.write_text(notebook.read_text().replace("seed = 0", "pass"))
    with pytest.raises(ValueError, match=r"no parameter seed; it has alpha"):
        Grid.read(write(NOTEBOOK))
    notebook.write_text(notebook.read_text().replace('"parameters"', '"other"'))
    with pytest.raises(ValueError, match='alpha, seed; no cell of it is tagged "parameters"'):
        Grid.read(write(NOTEBOOK))
    notebook.unlink()
    with pytest.raises(FileNotFoundError, match=r"page.ipynb is not there: `notebook` is relative"):
        Grid.read(write(NOTEBOOK))


VOICES = """question: Is it so?
recipe: nt_xent_am
settings: {corpus: synthetic_speakers}
arms: {without: {positive_margin: 0.0}, with: {positive_margin: 0.1}, warm: {temperature: 0.5}}
conditions: {both: {}, one: {symmetric: false}}
baseline: without
reader: cosine
seeds: [0, 1, 2]
"""


def test_error_rates_are_paired_by_arm_and_by_condition(write):
    draw = torch.Generator().manual_seed(0)
    path, eer = write(VOICES), {}
    for cell in Grid.read(path).cells:
        rates = torch.rand(200, generator=draw, dtype=torch.double)
        eer[cell.arm, cell.condition, cell.seed] = rates
        got = {"eer": rates.mean().item(), "resampled": pack_rates(rates)}
        of_z = {"eer": got["eer"] / 2, "resampled": pack_rates(rates / 2)}
        corpus, both = {"fingerprint": "f"}, {"cosine": got, "cosine_z": of_z}
        written(cell, results={"trained": both}, corpus=corpus)
    found = Findings.read(path)

    def gap(one, other, seeds=(0, 1, 2)):
        return torch.stack([eer[*one, seed] - eer[*other, seed] for seed in seeds]).mean(0)

    def ends(gaps, confidence):
        tail = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.double)
        return pytest.approx(gaps.quantile(tail).tolist(), abs=1e-4)

    pair = found.pair("warm", "one", against="with", confidence=0.9)
    gaps = gap(("warm", "one"), ("with", "one"))
    assert pair["difference"] == pytest.approx(gaps.mean().item())
    assert pair["interval"] == ends(gaps, 0.9)

    gains = found.gains("one", over="interval", confidence=0.9)
    assert list(gains) == ["with", "warm"]  # the arms but the baseline
    for arm, gain in gains.items():
        gaps = gap((arm, "one"), ("without", "one"))
        assert gain[0] == pytest.approx(gaps.mean().item()) and gain[1:] == ends(gaps, 0.9)
    low, high = found.gains("one")["warm"][1:]
    assert [low, high] == pytest.approx(found.pair("warm", "one")["seed_interval"])

    halves = found.with_reader("cosine_z").pair("warm", "one", against="with")
    assert halves["difference"] == pytest.approx(pair["difference"] / 2)
    assert found.grid.reader == "cosine"
    with pytest.raises(ValueError, match="unknown reader 'ear'"):
        found.with_reader("ear")

    pair = found.versus("one", "both", confidence=0.8)
    each = [gap((arm, "one"), (arm, "both"), [s]) for s in range(3) for arm in found.grid.arms]
    each = torch.stack(each).view(3, 3, -1).mean(1)  # seed by seed, the mean over the arms
    assert pair["seeds"] == [0, 1, 2]
    assert pair["per_seed"] == pytest.approx(each.mean(1).tolist())
    assert pair["interval"] == ends(each.mean(0), 0.8)
    assert pair["seed_interval"] == pytest.approx(seed_interval(pair["per_seed"], confidence=0.8))
    assert pair["difference"] == pytest.approx(each.mean().item())


# --- the grids of this project --------------------------------------------------------------------


def test_there_are_grids():
    assert len(COMMITTED) > 6


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_a_committed_grid_says_what_it_asks_and_how_it_will_be_answered(path):
    grid = Grid.read(path)
    for said in (grid.question, grid.rule, grid.detectable, grid.cost):
        assert len(said.split()) > 4
    assert len({c.target for c in grid.cells}) == len(grid.cells)
    assert {c.target.resolve().parents[1] for c in grid.cells} == {SWEEPS}
    assert all(c.recipe.profile in config.PROFILES for c in grid.cells)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_the_records_of_a_committed_grid_are_what_their_names_say(path):
    grid = Grid.read(path)
    for records in grid.found().values():
        for seed, record in records.items():
            assert record.recipe.seed == seed and label(record.recipe) == record.path.stem
            assert grid.reader in record.results["trained"]


def test_every_record_of_a_sweep_belongs_to_a_grid():
    known = {c.target.resolve() for path in COMMITTED for c in Grid.read(path).cells}
    assert set(SWEEPS.rglob("*.json")) <= known


def test_grids_that_share_a_run_mean_the_same_by_its_name():
    meant = {}
    for path in COMMITTED:
        for cell in Grid.read(path).cells:
            assert meant.setdefault(cell.target.resolve(), cell.recipe) == cell.recipe
    assert len(meant) < sum(len(Grid.read(path).cells) for path in COMMITTED)  # some are shared
