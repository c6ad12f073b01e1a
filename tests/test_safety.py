"""No file that somebody hands us is run: nothing is unpickled, evaluated or given to a shell."""

import ast
import pickle
import re
import shutil
from pathlib import Path

import nbformat
import psutil
import pytest
import torch
from tiny import write_corpus

from acl_lib import experiments, sweeps
from acl_lib.config import recipe
from acl_lib.datasets import cache_dir
from acl_lib.experiments import load_network, run, runs_dir
from acl_lib.records import Record

ROOT = Path(__file__).resolve().parents[1]

# --- what the code may not call

PICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
REFUSED = {
    "eval": "runs a string",
    "exec": "runs a string",
    "compile": "makes code of a string",
    "os.system": "hands a string to a shell",
    "os.popen": "hands a string to a shell",
    "subprocess.getoutput": "hands a string to a shell",
    "subprocess.getstatusoutput": "hands a string to a shell",
    "tempfile.mktemp": "names a file that another may make first",
    "torch.jit.load": "loads code",
    "torch.hub.load": "loads code",
    "torch.package.PackageImporter": "loads code",
    "pandas.read_pickle": "unpickles",
    "yaml.load_all": "may construct anything",
    "yaml.unsafe_load": "may construct anything",
    "yaml.full_load": "may construct anything",
}


def names_in_full(tree):
    """What each imported name stands for: {"np": "numpy", "load": "torch.load"}."""
    full = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name if alias.asname else alias.name.split(".")[0]
                full[alias.asname or name] = name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            full |= {
                alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names
            }
    return full


def safe_loaders(tree):
    """Names of yaml's safe readers, and of classes here that are one."""
    safe = {"yaml.SafeLoader", "yaml.CSafeLoader"}
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return safe | {c.name for c in classes if {ast.unparse(base) for base in c.bases} & safe}


def dangers(source):
    """What a file does that could run somebody's data, one line each."""
    tree = ast.parse(source)
    full, loaders, found = names_in_full(tree), safe_loaders(tree), []
    for node in ast.walk(tree):
        # any mention, so that `read = torch.load` is seen as well as a call
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            first, dot, rest = ast.unparse(node).partition(".")
            name = full.get(first, first) + dot + rest
            if name.split(".")[0] in PICKLERS and not name.endswith("Error"):
                found.append(
                    f"line {node.lineno}: {name} unpickles, or writes what others unpickle"
                )
            elif name in REFUSED:
                found.append(f"line {node.lineno}: {name} {REFUSED[name]}")
        if not isinstance(node, ast.Call):
            continue
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        first, dot, rest = ast.unparse(node.func).partition(".")
        name = full.get(first, first) + dot + rest
        asked = [ast.unparse(value) for value in node.args[1:2]] + [given.get("Loader", "none")]
        wrong = {
            "torch.load without weights_only=True": name == "torch.load"
            and given.get("weights_only") != "True",
            "numpy.load that may unpickle": name == "numpy.load"
            and given.get("allow_pickle", "False") != "False",
            "yaml.load without a safe loader": name == "yaml.load" and asked[0] not in loaders,
            "a shell": given.get("shell", "False") != "False",
            "a connection whose certificate nobody checks": given.get("verify") == "False",
        }
        found += [f"line {node.lineno}: {what}" for what, is_so in wrong.items() if is_so]
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(file)",
        "from pickle import loads as read\nread(data)",
        "import joblib\njoblib.load(path)",
        "import torch\ntorch.load(path)",
        "import torch as t\nt.load(path, weights_only=False)",
        "from torch import load\nload(path, weights_only=mine)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import pandas as pd\nread = pd.read_pickle",
        "import yaml\nyaml.load(text)",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "from yaml import unsafe_load\nunsafe_load(text)",
        "eval(text)",
        "exec(compile(text, path, 'exec'))",
        "import subprocess\nsubprocess.run(words, shell=True)",
        "import os\nos.system(text)",
        "import tempfile\ntempfile.mktemp()",
        "import requests\nrequests.get(address, verify=False)",
    ],
)
def test_each_danger_is_seen(source):
    assert dangers(source)


def test_their_safe_forms_are_no_dangers():
    safe = """
import re, torch, numpy as np, yaml, subprocess
from pickle import UnpicklingError
class Once(yaml.SafeLoader): pass
torch.load(path, weights_only=True)
np.load(path), np.load(path, allow_pickle=False), np.fromfile(path)
yaml.load(text, Once), yaml.load(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
subprocess.run(words), re.compile(pattern), torch.compile(module), model.eval()
"""
    assert dangers(safe) == []


FILES = [ROOT / "run.py"]
for folder in ("acl_lib", "benchmarks", "tests", "notebooks"):
    FILES += sorted(p for kind in ("*.py", "*.ipynb") for p in (ROOT / folder).rglob(kind))
# tests that set a trap, two that run an example of the book or a cell of the project, and the
# benchmark that runs the project's own source with a small mistake in it
TRAPS = ["test_safety.py", "test_checkpoints.py", "test_released.py"]
TRAPS += ["test_numerics.py", "test_publish.py", "mutants.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_of_the_project_runs_what_it_reads(path):
    if path.name in TRAPS:
        assert dangers(path.read_text(encoding="utf-8"))  # else it has no place in that list
        return
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        source = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    else:
        source = path.read_text(encoding="utf-8")
    assert dangers(source) == []


def test_no_explorer_makes_code_or_markup_of_a_string():
    """Their settings come out of a link, which anybody may have written."""
    making = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|fetch\("
    modules = sorted((ROOT / "acl_lib" / "explorers").glob("*.mjs"))
    found = [
        (path.name, line)
        for path in modules
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(making, line)
    ]
    assert modules and found == []


# --- hostile files


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "ran"


def hostile_contents(mark):
    """The trap as bare pickle, in torch's old format and in its new one."""
    for form in (False, True):
        file = mark.with_name("hostile")
        torch.save(Trap(mark), file, _use_new_zipfile_serialization=form)
        yield file.read_bytes()
    yield pickle.dumps(Trap(mark))


def test_the_trap_works(mark):
    for content in hostile_contents(mark):
        file = mark.with_name("file")
        file.write_bytes(content)
        try:
            torch.load(file, weights_only=False)
        except Exception:  # bare pickle is no file of torch
            pickle.loads(content)
        assert mark.exists()
        mark.unlink()


def test_a_record_from_a_stranger_brings_no_code(tmp_path, mark):
    shutil.copy(ROOT / "book/results/esc10/contrastive-all-seed0.json", tmp_path / "record.json")
    record = Record.read(tmp_path / "record.json")
    for content in hostile_contents(mark):
        experiments._weights(tmp_path, record.splits[0]).write_bytes(content)
        with pytest.raises(ValueError, match="is damaged or no checkpoint"):
            load_network(record)
    assert not mark.exists()


def test_whatever_file_of_a_run_is_hostile_it_is_not_run(tmp_path, mark, monkeypatch):
    """Each file that a run wrote, and the checkpoint it goes on from, replaced by a trap."""
    corpus = write_corpus(tmp_path / "sounds")
    monkeypatch.setattr(experiments, "open_corpus", lambda name, **options: corpus)
    small = {"width": 8, "epochs": 1, "batch": 4, "precision": "float32", "penalties": [0.1]}
    settings = recipe("contrastive", corpus="tiny", **small)
    record = run(settings, progress=False).path
    folders = (record.parent, cache_dir())
    files = [p for folder in folders for p in folder.rglob("*") if p.is_file()]
    assert {"record.json", "network-fold-1.pt", "frames.f16", "sums.f64"} <= {p.name for p in files}
    files.append(experiments._resume(record.parent, "fold 1"))
    whole = {path: path.read_bytes() if path.exists() else None for path in files}
    for hostile in files:
        for path, content in whole.items():
            path.unlink(missing_ok=True)
            # without its record the run is not found: it reads all the others
            if content is not None and path != record:
                path.write_bytes(content)
        hostile.write_bytes(pickle.dumps(Trap(mark)))
        if hostile.suffix == ".resume":  # what goes on has no network yet
            experiments._weights(record.parent, "fold 1").unlink()
        try:
            run(settings, progress=False)
        except Exception as error:  # refused, or made again: as it says
            assert not isinstance(error, pickle.PickleError), hostile
        assert not mark.exists(), hostile


# --- ports


def test_the_workers_of_a_sweep_listen_on_this_machine_only():
    """Dask's messages are pickles: whoever reaches one of its ports can run code."""
    runs_dir().mkdir(parents=True)
    before = {c.laddr for c in psutil.Process().net_connections("inet") if c.status == "LISTEN"}
    with sweeps._client(1, ["cpu"], None):
        mine = psutil.Process()
        heard = [
            c.laddr
            for process in [mine, *mine.children(recursive=True)]
            for c in process.net_connections("inet")
            if c.status == "LISTEN" and c.laddr not in before
        ]
    assert len(heard) >= 3  # scheduler, nanny, worker
    assert {address.ip for address in heard} == {"127.0.0.1"}
