"""The command line: a run from end to end, and mistakes answered in one line."""

import json
import re
import subprocess
import sys

import pytest
import torch
from tiny import write_corpus

from acl_lib import __main__ as command
from acl_lib import experiments, ledger, publish, sweeps
from acl_lib.__main__ import main
from acl_lib.config import RECIPES, recipe
from acl_lib.datasets import synthetic
from acl_lib.experiments import runs_dir
from acl_lib.explorers import build
from acl_lib.records import Record

TINY = ["--set", "width=8", "--set", "epochs=1", "--set", "batch=16", "--set", "penalties=[0.1]"]


@pytest.fixture
def nothing_runs(monkeypatch):
    """A mistake must be found before the corpus is opened."""

    def never(*a, **k):
        pytest.fail("work began")

    monkeypatch.setattr(experiments, "open_corpus", never)


def test_a_run_from_end_to_end(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(synthetic.PROFILES, "quick", 60)
    words = ["run", "acl", "--seed", "3", "--device", "cpu", "--pretrain-on", "all", *TINY]
    copy = tmp_path / "copies" / "record.json"
    assert main([*words, "--set", "alpha=0.5", "--record", str(copy)]) == 0
    out = capsys.readouterr().out
    assert "acl on synthetic: profile quick, seed 3, alpha 0.5" in out
    assert "trained encoder, linear probe" in out and "log-mel statistics, nearest" in out
    assert out.splitlines()[-1] == f"record: {copy}"
    (path,) = runs_dir().rglob("record.json")
    assert json.loads(path.read_text()) == json.loads(copy.read_text())
    settings = Record.read(path).recipe
    assert (settings.loss.alpha, settings.train.width, settings.pretrain_on) == (0.5, 8, "all")
    monkeypatch.setattr(experiments, "fit", lambda *a, **k: pytest.fail("trained again"))
    assert main([*words, "--set", "alpha=0.5"]) == 0  # found again
    assert capsys.readouterr().out.splitlines()[-1] == f"record: {path}"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--set", "alpha=2"], "alpha in [0, 1]"),
        (["--set", "alpha=-0.1"], "alpha in [0, 1]"),
        (["--set", "temperature=0"], "temperature > 0"),
        (["--set", "temperature=nan"], "temperature must be a finite number; got 'nan'"),
        (["--set", "alpha="], "alpha must be a finite number; got ''"),
        (["--set", "batch=1"], "batch >= 2"),
        (["--set", "width=4"], "width >= 8"),
        (["--set", "optimizer=adam"], "optimizer='adam' needs select_by='knn' or 'loss'"),
        (["--set", "tau=0.1"], "unknown setting 'tau'; there are "),
        (["--set", "alpha"], "--set takes NAME=VALUE; got 'alpha'"),
        (["--set", "seed=3"], "--set is not for seed: see acl run --help"),
        (["--set", "name=x"], "--set is not for name"),
        (["--seed", "-1"], "seed in 0 to"),
        (["--threads", "0"], "--threads must be at least 1; got 0"),
        (["--pretrain-on", "test"], "pretrain_on in ('train', 'all', 'clean', 'noisy'"),
    ],
)
def test_a_mistake_is_answered_in_one_line_before_any_work(nothing_runs, capsys, words, says):
    assert main(["run", "contrastive", *words]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("acl: ") and says in said.err
    assert said.err.count("\n") == 1
    assert not runs_dir().exists()


def test_a_missing_corpus_and_an_unknown_one(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("ACL_DATA", str(tmp_path / "nowhere"))
    assert main(["run", "contrastive", "--corpus", "esc10"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("acl: ") and "nowhere" in said and "ACL_DATA" in said
    assert main(["run", "contrastive", "--corpus", "esc11"]) == 1
    assert "'esc11'" in capsys.readouterr().err
    assert main(["corpora", "esc10"]) == 1
    assert "nowhere" in capsys.readouterr().err


def test_a_damaged_file_and_what_to_do_about_it(capsys, monkeypatch, tmp_path):
    corpus = write_corpus(tmp_path / "sounds", clips=6)
    corpus.clips[2].path.write_text("not a sound")
    monkeypatch.setattr(experiments, "open_corpus", lambda name, **options: corpus)
    words = ["run", "contrastive", *TINY, "--set", "epochs=1"]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "1 of 6 files" in said and "02.wav" in said and "skip_unreadable" in said
    assert "Traceback" not in said
    assert main([*words, "--skip-unreadable"]) == 0


def test_a_full_disk_and_a_diverging_loss_are_messages_too(capsys, monkeypatch):
    for error in (OSError(28, "No space left on device"), FloatingPointError("the loss is nan")):

        def fail(*a, error=error, **k):
            raise error

        monkeypatch.setattr(experiments, "run", fail)
        assert main(["run", "acl"]) == 1
        assert str(error) in capsys.readouterr().err


def test_threads_are_set(monkeypatch):
    before, used = torch.get_num_threads(), []

    def stop(*a, **k):
        used.append(torch.get_num_threads())
        raise ValueError("enough")

    monkeypatch.setattr(experiments, "evaluation_splits", stop)
    monkeypatch.setitem(synthetic.PROFILES, "quick", 60)
    try:
        assert main(["run", "acl", "--threads", "3"]) == 1
    finally:
        torch.set_num_threads(before)
    assert used == [3]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--help"], 0, "Contrastive learning of audio"),
        (["run", "--help"], 0, "NAME=VALUE"),
        (["corpora", "--help"], 0, "--download"),
        ([], 2, "required: command"),
        (["--help"], 0, "acl report runs"),
        (["run", "--help"], 0, "paper_code_supervised"),
        (["probe", "--help"], 0, "folder:PATH"),
        (["report", "--help"], 0, "paired tests"),
        (["reproduce", "--help"], 0, "the record's"),
        (["prepare", "--help"], 0, "--download"),
        (["sweep", "--help"], 0, "tcp://host:8786"),
        (["ledger", "--help"], 0, "`stale` marks"),
        (["sweep", "a.yaml", "--seeds", "one"], 2, "invalid int value: 'one'"),
        (["run", "acl", "--profile", "big"], 2, "invalid choice: 'big'"),
        (["run", "acl", "--seed", "one"], 2, "invalid int value: 'one'"),
    ],
)
def test_help_and_words_that_do_not_exist(capsys, words, code, says):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == code
    said = capsys.readouterr()
    assert says in said.out + said.err


def test_help_comes_at_once():
    script = (
        "import sys, runpy; sys.argv = ['acl', 'run', '--help']\n"
        "try: runpy.run_module('acl_lib', run_name='__main__')\n"
        "finally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and "--pretrain-on" in done.stdout, done.stderr


def test_values_are_read_as_numbers_where_they_are():
    for text, value in {
        "a=1": 1,
        "a=0.5": 0.5,
        "a=1e-3": 1e-3,
        "a=[0.1, 1]": [0.1, 1],
        "a=adamw": "adamw",
        "a=x=y": "x=y",
    }.items():
        assert command._setting(text) == ("a", value)


def test_a_corpus_is_reported(capsys, monkeypatch):
    monkeypatch.setitem(synthetic.PROFILES, "quick", 60)
    assert main(["corpora", "synthetic"]) == 0
    assert re.search(r"\b60\b", capsys.readouterr().out)


@pytest.fixture
def sixty(monkeypatch):
    """The synthetic corpus with sixty clips."""
    monkeypatch.setitem(synthetic.PROFILES, "quick", 60)


def test_a_recipe_file_is_run_and_a_bad_one_refused_by_key(capsys, sixty, tmp_path):
    file = tmp_path / "mine.json"
    made = recipe("acl", alpha=0.6, width=8, epochs=1, penalties=[0.1])
    file.write_text(made.to_json())
    assert main(["run", str(file), "--seed", "2", "--set", "batch=16"]) == 0
    (path,) = runs_dir().rglob("record.json")
    got = Record.read(path).recipe
    assert (got.loss.alpha, got.seed, got.train.batch, got.name) == (0.6, 2, 16, "acl")
    capsys.readouterr()
    for text, says in (
        ('{"loss": {"tau": 1}}', "unknown ['tau']; allowed ['alpha', 'margin', 'margin_kind'"),
        ('{"loss": {"alpha": "much"}}', "alpha must be a finite number; got 'much'"),
        ('{"loss": {"alpha": NaN}}', "alpha must be a finite number; got nan"),
        ('{"loss": {"alpha": 7}}', "need alpha in [0, 1]"),
        (
            '{"method": "supervised", "pretrain_on": "all"}',
            "pretrain_on='all' needs method='simclr'",
        ),
        ("{", "Expecting property name"),
    ):
        file.write_text(text)
        assert main(["run", str(file)]) == 1
        said = capsys.readouterr().err
        assert said.startswith(f"acl: {file}: ") and says in said, said
    assert main(["run", str(file), "--profile", "laptop"]) == 1
    assert "a file says all of it" in capsys.readouterr().err
    assert main(["run", str(tmp_path / "gone.json")]) == 1
    assert "gone.json" in capsys.readouterr().err


def test_records_are_reported_probed_and_reproduced(capsys, sixty, tmp_path):
    threads = ["--threads", str(torch.get_num_threads())]
    for name, seed in (("contrastive", 0), ("acl", 0)):
        assert main(["run", name, "--seed", str(seed), *threads, *TINY]) == 0
    capsys.readouterr()
    assert main(["report", str(runs_dir())]) == 0
    out = capsys.readouterr().out
    assert "NT-Xent; pretrained on train" in out and "paired: b - a" in out
    path = next(iter(sorted(runs_dir().rglob("record.json"))))
    assert main(["probe", str(path), "--set", "neighbours=3"]) == 0
    assert "acl, trained on synthetic; asked about synthetic" in capsys.readouterr().out
    assert main(["reproduce", str(path)]) == 0
    assert "repeated exactly" in capsys.readouterr().out
    values = json.loads(path.read_text())
    values["results"]["trained"]["knn"]["n"] = 7
    path.write_text(json.dumps(values))
    assert main(["reproduce", str(path)]) == 1
    out = capsys.readouterr().out
    assert "1 numbers differ" in out and "results.trained.knn.n: 7 in the record, 20 now" in out
    assert main(["report", str(tmp_path / "none.json")]) == 1
    assert "none.json" in capsys.readouterr().err


def test_log_mels_are_prepared_before_they_are_used(capsys, sixty):
    assert main(["prepare", "contrastive"]) == 0
    assert re.search(r"synthetic: 60 clips, 0\.0\d hours of log-mels", capsys.readouterr().out)


def test_own_sounds_need_no_python(capsys, tmp_path):
    write_corpus(tmp_path / "birds")
    words = ["--corpus", f"folder:{tmp_path / 'birds' / 'clips.csv'}", *TINY]
    assert main(["run", "supervised", *words, "--set", "batch=4"]) == 0
    assert "its own classifier" in capsys.readouterr().out


def test_away_from_a_terminal_progress_is_lines(capsys, sixty):
    assert main(["run", "contrastive", *TINY, "--set", "epochs=3"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("contrastive, test: epoch 1 of 3, loss ")
    assert re.search(r"epoch 3 of 3, loss [\d.]+, \d+ clips/s, 0 s left$", lines[-1])
    assert not any("\r" in line for line in lines)


def test_the_records_of_explorers_are_made_in_the_profile_of_their_corpus(capsys, monkeypatch):
    made = []
    monkeypatch.setattr(build, "build", lambda *what: made.append(what) or ["a.json", "b.json"])
    assert main(["explorers", "build"]) == 0
    assert capsys.readouterr().out == "record: a.json\nrecord: b.json\n"
    assert main(["explorers", "build", "--corpus", "esc10"]) == 0
    assert main(["explorers", "build", "--profile", "laptop"]) == 0
    assert made == [("synthetic", "quick"), ("esc10", "laptop"), ("synthetic", "laptop")]


# what becomes of a grid is tested in test_sweeps.py


def test_a_sweep_says_what_is_made_what_failed_and_how_long_the_rest_takes(
    capsys, monkeypatch, tmp_path
):
    path = tmp_path / "mine.yaml"
    path.write_text("question: So?\nrecipe: acl\narms: {alpha: [0, 1]}\nseeds: [0, 1]\n")
    asked = []

    def run_grid(grid, **options):
        asked.append(options)
        for i, cell in enumerate(grid.part(*options["part"])):
            failed = (
                {"status": "failed", "error": "OSError: full"} if i == 2 else {"status": "made"}
            )
            yield sweeps.Outcome(cell, seconds=61.0, **failed)

    monkeypatch.setattr(sweeps, "run_grid", run_grid)
    assert main(["sweep", str(path)]) == 1
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[:2] == ["So?", "4 runs: 0 made, 0 made by other code, 4 to do"]
    assert lines[2] == "[1/4] acl,alpha=0,seed=0: made in 61 s, 0 min left"
    assert lines[4] == "[3/4] acl,alpha=0,seed=1: OSError: full in 61 s, 0 min left"
    assert said.err == "acl: 1 of 4 runs failed; the same command tries them again\n"
    words = ["--part", "1/2", "--jobs", "3", "--devices", "cuda:0,cpu", "--scheduler", "x:1"]
    assert main(["sweep", str(path), *words, "--renew", "--seeds", "5", "--set", "epochs=2"]) == 0
    assert capsys.readouterr().out.splitlines()[2].startswith("[1/1] acl,alpha=0,epochs=2,seed=5")
    plain = {"jobs": None, "devices": [], "scheduler": None, "part": (1, 1), "renew": False}
    given = {"jobs": 3, "devices": ["cuda:0", "cpu"], "scheduler": "x:1", "part": (1, 2)}
    assert asked == [plain, given | {"renew": True}]

    def stopped(*a, **k):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweeps, "run_grid", stopped)
    assert main(["sweep", str(path)]) == 130
    assert "the same command goes on from here" in capsys.readouterr().err


def test_a_ledger_is_written_among_the_runs_and_counts_what_is_stale(capsys, monkeypatch, tmp_path):
    records = publish.RESULTS / "sweeps" / "esc10-quick"
    assert main(["ledger", str(records / "acl,seed=0.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{runs_dir() / 'ledger.csv'}: 6 rows of 1 records"
    monkeypatch.setattr(ledger, "code_fingerprint", lambda: "other")
    out = tmp_path / "all.csv"
    both = [str(records / f"acl,seed={seed}.json") for seed in (0, 1)]
    assert main(["ledger", *both, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said == (
        f"{out}: 12 rows of 2 records\n2 records were made by code that has changed since\n"
    )
    assert out.read_text().count("\n") == 13
    monkeypatch.chdir(tmp_path)
    assert main(["ledger"]) == 1
    assert "book/results" in capsys.readouterr().err


def test_an_interruption_by_hand_says_how_to_go_on(capsys, monkeypatch):
    def stop(*a, **k):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiments, "run", stop)
    assert main(["run", "acl"]) == 130
    assert "the same command goes on from here" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["paper_code", "paper_text", "paper_code_supervised"])
def test_the_papers_protocols_run_end_to_end_on_the_layout_of_fsdnoisy18k(
    capsys, monkeypatch, tmp_path, name
):
    made = synthetic.SyntheticEvents.open(tmp_path / "made", clips=60, progress=False)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "fsdnoisy18k").symlink_to(made.root)
    monkeypatch.setenv("ACL_DATA", str(tmp_path / "data"))
    small = {"width": 8, "epochs": 2, "batch": 16, "penalties": [0.1]}
    if name == "paper_code":
        small |= {"probe_epochs": 2, "select_neighbours": 10, "finetune_epochs": 1}
    words = [w for k, v in small.items() for w in ("--set", f"{k}={v}")]
    assert main(["run", name, "--corpus", "fsdnoisy18k", *words]) == 0
    (path,) = runs_dir().rglob("record.json")
    record = Record.read(path)
    trained = record.results["trained"]
    assert record.recipe.profile == "paper" and trained["linear"]["n"] == 20
    extra = {"paper_code": {"linear_sgd", "finetuned"}, "paper_text": set()}
    assert set(trained) - {"linear", "knn"} == extra.get(name, {"classifier"})
    scored = [bool(chosen["scores"]) for chosen in record.selection]
    assert scored == [name != "paper_text"]
    assert len(record.corpus["classes"]) == 20 and RECIPES[name]["profile"] == "paper"
