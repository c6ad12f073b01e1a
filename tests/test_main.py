"""The command line: a run from end to end, and mistakes answered in one line."""

import json
import re
import subprocess
import sys

import pytest
import torch
from tiny import write_corpus

from acl_lib import __main__ as command
from acl_lib import experiments
from acl_lib.__main__ import main
from acl_lib.datasets import synthetic
from acl_lib.experiments import Record, runs_dir

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
    assert "trained encoder, linear probe" in out and "log-mel statistics, same probe" in out
    assert out.splitlines()[-1] == f"record: {copy}"
    (path,) = runs_dir().rglob("record.json")
    assert json.loads(path.read_text()) == json.loads(copy.read_text())
    settings = Record.read(path).recipe
    assert (settings.loss.alpha, settings.train.width, settings.pretrain_on) == (0.5, 8, "all")
    monkeypatch.setattr(experiments, "pretrain", lambda *a, **k: pytest.fail("trained again"))
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
        (["--set", "optimizer=adam"], "optimizer in ('sgd', 'adamw'); got 'adam'"),
        (["--set", "tau=0.1"], "unknown setting 'tau'; there are "),
        (["--set", "alpha"], "--set takes NAME=VALUE; got 'alpha'"),
        (["--set", "seed=3"], "--set is not for seed: see acl run --help"),
        (["--set", "name=x"], "--set is not for name"),
        (["--seed", "-1"], "seed in 0 to"),
        (["--threads", "0"], "--threads must be at least 1; got 0"),
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

    monkeypatch.setattr(experiments, "run", stop)
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
        (["run", "simclr"], 2, "invalid choice: 'simclr'"),
        (["run", "acl", "--profile", "big"], 2, "invalid choice: 'big'"),
        (["run", "acl", "--pretrain-on", "test"], 2, "invalid choice: 'test'"),
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
