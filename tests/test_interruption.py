"""A run killed at any moment and started again writes the record of one that was left alone."""

import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

MOMENTS = 20
SETTINGS = {
    "corpus": "tiny",
    "width": 8,
    "epochs": 3,
    "batch": 4,
    "precision": "float32",
    "penalties": [0.1],
    "alpha": 0.5,
    "select_by": "knn",
    "select_share": 0.4,
    "select_neighbours": 3,
    "solver": "sgd",
    "probe_epochs": 2,
    "finetune_epochs": 2,
}


def work(root: str, kill_at: int, events) -> None:
    """One run in a process of its own, which kills itself at an event.

    Events: before each step, around each probe, and each time a file is complete on disk but does
    not have its name yet.
    """
    import torch

    from acl_lib import experiments, training
    from acl_lib.config import recipe
    from acl_lib.datasets import AudioFolder

    def event() -> None:
        events.value += 1
        if events.value == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def told(call):
        def telling(*a, **k):
            event()
            return call(*a, **k)

        return telling

    torch.set_num_threads(1)
    training.CHECKPOINT_SECONDS = 0.0
    os.replace = told(os.replace)
    for step in (training.SimCLRStep, training.SupervisedStep):
        step.__call__ = told(step.__call__)
    for name in ("linear_probe", "knn", "embed"):
        setattr(experiments, name, told(getattr(experiments, name)))
    os.environ["ACL_RUNS"], os.environ["ACL_CACHE"] = f"{root}/runs", f"{root}/cache"
    sounds = AudioFolder.open(Path(root).parent / "sounds" / "clips.csv", name="tiny")
    experiments.open_corpus = lambda name, **options: sounds
    experiments.run(recipe("acl", **SETTINGS), progress=False)


def content(root: Path) -> dict:
    (path,) = (root / "runs").rglob("record.json")
    values = json.loads(path.read_text(encoding="utf-8"))
    del values["cost"]  # times
    left = sorted(p.name for p in path.parent.iterdir())
    assert left == ["network-fold-1.pt", "network-fold-2.pt", "record.json"]
    return values


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a system with SIGKILL")
def test_a_run_killed_at_any_of_twenty_moments_ends_with_the_same_record(tmp_path):
    from tiny import write_corpus

    write_corpus(tmp_path / "sounds")
    context = multiprocessing.get_context("forkserver")
    # the first optimiser imports torch._dynamo, which takes longer than a whole run here
    context.set_forkserver_preload(["acl_lib.experiments", "torch._dynamo", "scipy.stats"])

    one_at_a_time = threading.Lock()

    def start(root: Path, kill_at: int = -1) -> tuple[int, int]:
        events = context.Value("i", 0)
        process = context.Process(target=work, args=(str(root), kill_at, events))
        with one_at_a_time:  # a start also reads the exit codes of others, and each is there once
            process.start()
        multiprocessing.connection.wait([process.sentinel])
        with one_at_a_time:
            process.join()
        return process.exitcode, events.value

    code, events = start(tmp_path / "whole")
    assert code == 0 and events > 2 * MOMENTS
    expected = content(tmp_path / "whole")

    def killed_and_taken_up_again(i: int) -> None:
        root, moment = tmp_path / f"killed-{i}", 1 + i * (events - 1) // (MOMENTS - 1)
        assert start(root, moment) == (-signal.SIGKILL, moment)
        code, left = start(root)
        assert code == 0 and (left < events or moment < 10)  # what was done is not done again
        assert content(root) == expected, f"killed at event {moment} of {events}"

    with ThreadPoolExecutor(2) as two:
        list(two.map(killed_and_taken_up_again, range(MOMENTS)))
