"""One seed gives one record in every process; more threads draw the same, and round otherwise."""

import json
import os
import subprocess
import sys

import pytest
from tiny import write_corpus

from acl_lib.again import TOLERANCE, how_far
from acl_lib.publish import ROOT
from acl_lib.records import differences

# one process trains each method in turn, on the sounds of a folder, and prints what it found
PROGRAM = """
import json, sys
from acl_lib import experiments
from acl_lib.config import recipe
from acl_lib.datasets import AudioFolder

corpus = AudioFolder.open("sounds/clips.csv", name="tiny")
experiments.open_corpus = lambda name, **options: corpus
small = {"width": 8, "epochs": 1, "batch": 4, "splits": 1, "precision": "float32"}
found = {}
for name, more in json.loads(sys.argv[1]).items():
    for kind, threads, rate in json.loads(sys.argv[2]):
        settings = small | {"penalties": [0.1]} | more | ({"lr": rate} if rate else {})
        wanted = recipe("acl" if name == "moco" else name, corpus="tiny", **settings)
        record = experiments.run(wanted, device="cpu", threads=threads, again=True, progress=False)
        content = record.content()
        found[f"{name}, {kind}"] = {k: content[k] for k in sys.argv[3].split()}
print(json.dumps(found))
"""
METHODS = {"acl": {}, "moco": {"method": "moco", "queue": 8}, "supervised_acl": {}}
PARTS = "recipe corpus results geometry history selection splits versions code"
# a rate at which weights hardly move: what is left of another number of threads is rounding
STILL = 1e-7


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What two fresh processes found: the usual; and one thread and two where nothing moves."""
    home = tmp_path_factory.mktemp("again")
    write_corpus(home / "sounds", clips=12)

    def found(name, plans):
        env = os.environ | {
            "PYTHONPATH": str(ROOT),
            "ACL_CACHE": str(home / "cache"),
            "ACL_RUNS": str(home / name),
            "PYTHONHASHSEED": str(len(name)),  # no order of a set may decide a number
        }
        told = subprocess.run(
            [sys.executable, "-c", PROGRAM, json.dumps(METHODS), json.dumps(plans), PARTS],
            cwd=home,
            env=env,
            capture_output=True,
            text=True,
        )
        assert told.returncode == 0, told.stderr
        return json.loads(told.stdout.splitlines()[-1])

    usual = ["usual", 1, None]
    return (
        found("first", [usual, ["one", 1, STILL], ["two", 2, STILL]]),
        found("second", [usual]),
    )


@pytest.mark.parametrize("method", METHODS)
def test_two_fresh_processes_write_the_same_record(trained, method):
    first, second = (found[f"{method}, usual"] for found in trained)
    assert first["history"][0][0] > 0 and first["results"]["trained"]
    assert json.dumps(first) == json.dumps(second)  # times, commit and path are left out


@pytest.mark.parametrize("method", METHODS)
def test_another_number_of_threads_draws_the_same_and_rounds_otherwise(trained, method):
    one, two = (trained[0][f"{method}, {kind}"] for kind in ("one", "two"))
    lines = [
        line
        for part in ("results", "geometry", "history", "selection")
        for line in differences(part, one[part], two[part])
    ]
    far = how_far(lines)
    assert far.within(TOLERANCE), str(far)
    assert far.first_loss < 1e-4, str(far)  # other draws would change the first digit
