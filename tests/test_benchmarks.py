"""The benchmarks: what they compute from their timings, and that small ones run to a record."""

import ast
import importlib
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from acl_lib.config import recipe

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Name -> the module of that benchmark; threads are as before afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    threads = torch.get_num_threads()

    def load(name):
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    yield load
    torch.set_num_threads(threads)


# --- timing


def test_a_ratio_is_taken_within_a_round(benchmark):
    """The machine was twice as slow in the second round, for both."""
    ratio = benchmark("timing").ratio_with_spread
    found = ratio([3.0, 6.0, 4.0, 5.0], [1.0, 2.0, 1.0, 2.0])
    assert found == {"median": 3.0, "min": 2.5, "max": 4.0, "rounds": 4}
    assert ratio([2.0], [2.0]) == {"median": 1.0, "min": 1.0, "max": 1.0, "rounds": 1}
    with pytest.raises(ValueError, match="zip"):
        ratio([1.0, 2.0], [1.0])


def test_contenders_take_turns_and_the_least_is_the_least_of_their_rounds(benchmark, monkeypatch):
    timing = benchmark("timing")
    clock, turns, cost = [0.0], [], {"a": iter([9, 3, 2, 4]), "b": iter([9, 8, 7, 6])}
    monkeypatch.setattr(timing, "spent_cpu_seconds", lambda: clock[0])

    def step(name):
        turns.append(name)
        clock[0] += next(cost[name])

    steps = {name: lambda name=name: step(name) for name in cost}
    found = timing.cpu_seconds_by_round(steps, rounds=3)
    assert turns == ["a", "b"] * 4  # once to warm up
    assert found == {"a": [3, 2, 4], "b": [8, 7, 6]}
    cost |= {"a": iter([9, 3, 2, 4]), "b": iter([9, 8, 7, 6])}
    assert timing.least_cpu_seconds(steps, rounds=3) == {"a": 2, "b": 6}


def test_work_of_other_processes_counts_when_they_have_ended(benchmark):
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    before = time.process_time()
    spent = benchmark("timing").cpu_seconds(lambda: subprocess.run([sys.executable, "-c", burn]))
    assert spent > 0.19 > time.process_time() - before


# --- the protocol on a GPU


@pytest.mark.parametrize(
    ("name", "steps", "patches"),
    [
        ("paper_code", 62_000, 500 * 2 * 15_813),  # 124 batches an epoch, the last of 69 clips
        ("paper_text", 68_500, 500 * 2 * 17_536),  # 137 full ones; 49 clips sit out
    ],
)
def test_the_protocols_length_follows_from_its_recipe(benchmark, name, steps, patches):
    assert benchmark("gpu_protocol").protocol(recipe(name)) == (steps, patches)


def test_a_patch_takes_the_operations_of_the_network_and_two_gradients(benchmark):
    count = benchmark("gpu_protocol").flops_per_patch
    assert count(recipe("paper_code")) == pytest.approx(2.22e9, rel=0.01)
    # nearly all layers have both channels twice as many
    assert count(recipe("paper_code", width=32)) == pytest.approx(2.22e9 / 4, rel=0.05)


def test_the_store_of_noise_has_the_lengths_of_the_corpus_and_the_sums_of_its_frames(benchmark):
    module = benchmark("gpu_protocol")
    seconds = module.clip_seconds(3000, torch.Generator().manual_seed(0))
    assert seconds.mean().item() == pytest.approx(42.5 * 3600 / 18_532, rel=1e-6)
    assert 0.3 <= seconds.min() < 1 and 25 < seconds.max() <= 30
    mel = recipe("paper_code").mel
    store, again = (module.noise_store(30, mel, torch.device("cpu")) for _ in range(2))
    assert torch.equal(store.frames, again.frames) and store.frames.dtype == torch.float16
    assert store.lengths.min() >= 101 and store.lengths.sum() == len(store.frames)
    for n, (start, length) in enumerate(zip(store.starts, store.lengths, strict=True)):
        mine = store.frames[start : start + length].double()
        torch.testing.assert_close(store.sums[n], torch.stack([mine.sum(0), mine.square().sum(0)]))
    mean, std = store.mel_statistics()
    assert (mean, std) == pytest.approx((-1.4, 2.2), abs=0.05)


def test_a_summary_adds_up(benchmark):
    """Two rounds of two steps of 10, 20, 30 and 40 ms, each half backward and a tenth the rest."""
    module = benchmark("gpu_protocol")
    part = {"views": 0.1, "forward": 0.2, "loss": 0.1, "backward": 0.5, "optimiser": 0.1}
    steps = [{stage: ms * share for stage, share in part.items()} for ms in (10, 20, 30, 40)]
    found = module.summary([steps[:2], steps[2:]], flops=5e12)
    assert found["ms"] == pytest.approx({"median": 25, "p10": 13, "p90": 37, "n": 4})
    assert found["tflops"] == pytest.approx(200)  # 5 in 25 ms
    assert found["stages_share"] == pytest.approx(part)
    assert found["share_outside_network"] == pytest.approx(0.3)
    assert found["stages_mean_ms"]["backward"] == pytest.approx(12.5)


@pytest.mark.parametrize("name", ["paper_code", "paper_text"])
def test_a_rehearsal_of_the_protocol(benchmark, tmp_path, name):
    module = benchmark("gpu_protocol")
    out = tmp_path / "record.json"
    sizes = "--clips 20 --steps 2 --rounds 2 --warm-up 1 --width 8 --batch 8 --device cpu"
    module.main([*sizes.split(), "--recipes", name, "--out", str(out)])
    record = json.loads(out.read_text())
    (found,) = record["recipes"]
    (eager,) = found["variants"]
    assert found["steps"] == module.protocol(recipe(name, batch=8))[0]
    assert eager["ms"]["n"] == 4 and 0 < eager["ms"]["p10"] <= eager["ms"]["median"]
    for key in ("median", "p10", "p90"):
        minutes = found["steps"] * eager["ms"][key] / 60_000
        assert eager["projected_training_minutes"][key] == pytest.approx(minutes, rel=1e-3)
    assert sum(eager["stages_share"].values()) == pytest.approx(1, abs=1e-3)
    tflops = found["gflop_per_patch"] * 16 / eager["ms"]["median"]  # 16 patches in a batch
    assert eager["tflops"] == pytest.approx(tflops, rel=1e-3)
    whole = found["projected_whole_minutes"][found["fastest"]]
    parts = ("embedding", "fit", "selection")
    rest = [found["probe"][f"projected_{part}_minutes"] for part in parts]
    alone = eager["projected_training_minutes"]["median"]
    assert whole == pytest.approx(alone + sum(rest), rel=1e-3)
    assert (rest[2] > 0) == (name == "paper_code")  # which selects by its neighbours


def test_a_rehearsal_leaves_the_record_of_the_gpu_alone(benchmark, tmp_path, monkeypatch):
    module = benchmark("gpu_protocol")
    monkeypatch.setattr(module, "RECORD", tmp_path / "record.json")
    monkeypatch.setattr(module, "measure", lambda *args: {"variants": []})
    monkeypatch.setattr(module, "show", lambda *args: None)
    module.main(["--device", "cpu", "--clips", "10"])
    assert not module.RECORD.exists()


# --- the others, small


def test_the_comparison_of_losses(benchmark, tmp_path):
    pytest.importorskip("lightly")
    pytest.importorskip("pytorch_metric_learning")
    out = tmp_path / "record.json"
    benchmark("losses").main(["--clips", "4", "--d", "8", "--rounds", "2", "--out", str(out)])
    rows = json.loads(out.read_text())["rows"]
    ours = [row for row in rows if row["by"] == "acl_lib"]
    assert {row["ratio_to_ours"]["median"] for row in ours} == {1}
    assert {row["by"] for row in rows if row["loss"] == "nt_xent"} > {"acl_lib", "lightly"}
    assert all(row["ratio_to_ours"]["rounds"] == 2 for row in rows)


def test_what_the_losses_are_compared_with_computes_the_same(benchmark):
    pytest.importorskip("lightly")
    pytest.importorskip("pytorch_metric_learning")
    module = benchmark("losses")
    views = module.views_of_clips(24, 16)
    for name in ("nt_xent", "supcon"):
        values = {by: loss(*views).item() for by, loss in module.contenders(24)[name].items()}
        assert list(values.values()) == pytest.approx([values["acl_lib"]] * len(values), rel=1e-4)


def test_the_comparison_of_views(benchmark, tmp_path):
    out = tmp_path / "record.json"
    module = benchmark("augment")
    module.main(["--clips", "6", "--pairs", "4", "--rounds", "1", "--out", str(out)])
    record = json.loads(out.read_text())
    assert record["batched_total"] == pytest.approx(
        sum(record["cpu_microseconds_per_pair"].values()), abs=0.5
    )
    assert [row["by"] for row in record["rows"]] == [
        "loop",
        "DataLoader, 0 workers",
        "DataLoader, 2 workers",
    ]
    frames = torch.randn(3 * 120, module.BANDS).half()
    data = module.Views(frames, torch.tensor([0, 120, 240]), torch.full((3,), 120))
    assert data[2].shape == (2, 1, module.P, module.BANDS) and data[2].isfinite().all()


def test_the_comparison_of_the_geometry(benchmark, tmp_path, monkeypatch):
    module = benchmark("metrics")
    monkeypatch.setattr(module, "extra_megabytes", lambda *args: None)  # a process for each
    out = tmp_path / "record.json"
    sizes = "--rows 50 100 --many 60 200 --pairs-up-to 100 --rounds 1 --gpu-rows 5000"
    module.main([*sizes.split(), "--out", str(out)])
    record = json.loads(out.read_text())
    assert max(abs(row["difference_to_ours"]) for row in record["rows"]) < 1e-6
    assert {row["rows"] for row in record["rows"] if row["by"] == "all pairs"} == {50, 60, 100}
    million = record["uniformity_of_a_million_rows"]
    seconds = next(
        row["cpu_seconds"] for row in record["rows"] if (row["rows"], row["by"]) == (100, "acl_lib")
    )
    assert million["projected_cpu_hours"] == pytest.approx(seconds * 1e8 / 3600, rel=0.01)
    rows = [{"rows": n, "cpu_seconds": n**1.5} for n in (10, 20, 60)]
    assert module.growths(rows) == [1.5, 1.5]


# --- large batches, threads, several processes


def run(module, monkeypatch, *words) -> dict:
    """The record of a benchmark that is started with these words."""
    monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, words)])
    module.main()
    return json.loads(Path(words[-1]).read_text())


def test_the_comparison_of_large_batches(benchmark, tmp_path, monkeypatch):
    module = benchmark("large_batches")
    monkeypatch.setattr(module.losses, "BLOCKWISE_ROWS", module.losses.BLOCKWISE_ROWS)
    monkeypatch.setattr(module, "peak_mb", lambda afresh=False: 100.0)
    spent = iter([2.0, 1.0, 4.0, 1.0, 3.0, 3.0] * 100)  # whole, tiles, whole, ...

    def call(form, by, kind, rows, d):
        return module.one_call(form, by, kind, rows, d) | {"cpu_seconds": next(spent)}

    monkeypatch.setattr(module, "in_a_process", call)
    words = ["--rows", 24, "--d", 8, "--largest", 0, "--rounds", 3, "--out", tmp_path / "r.json"]
    record = run(module, monkeypatch, *words)
    assert len(record["rows"]) == 2 * len(module.FORMS)
    for row in record["rows"]:
        assert row["time_ratio"] == 0.5 and row["time_ratio_range"] == [0.25, 1.0]
        assert row["whole_cpu_ms"] == 2000 and row["tiles_cpu_ms"] == 1000 and row["n"] == 3
    for row in record["errors"]:
        assert row["tiles_float64_value"] < 1e-14 and row["tiles_float64_gradient"] < 1e-12
        assert row["tiles_float32_gradient"] < 1e-5


def test_the_comparison_of_threads(benchmark, tmp_path, monkeypatch):
    module = benchmark("threads")
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    rounds = iter([10.0, 20.0, 40.0])

    def measured(threads, waiting, busy, steps, width):
        slower = next(rounds) if (threads, waiting, busy) == (1, "ACTIVE", 0) else 30.0
        return slower * (threads if busy else 1 / threads)

    monkeypatch.setattr(module, "measured", measured)
    record = run(module, monkeypatch, "--rounds", 3, "--out", tmp_path / "r.json")
    rows = {(r["busy_processes"], r["waiting"], r["threads"]): r for r in record["rows"]}
    assert len(rows) == len(record["rows"]) == 2 * 2 * 3 and record["cores"] == 3
    assert rows[3, "PASSIVE", 2]["ratio_to_one_thread"] == 2
    assert rows[0, "ACTIVE", 3]["ratio_range"] == [0.25, 1.0]
    assert rows[0, "ACTIVE", 1]["step_ms"] == 20


def test_a_batch_shared_by_two_processes(benchmark, tmp_path, monkeypatch):
    script = FOLDER / "several_processes.py"
    words = "--rounds 1 --steps 1 --clips 4 --width 8 --out".split()
    subprocess.run([sys.executable, script, *words, tmp_path / "r.json"], check=True)
    record = json.loads((tmp_path / "r.json").read_text())
    assert [row["loss"] for row in record["rows"]] == ["NT-Xent", "ACL", "NT-Xent-AM", "MoCo"]
    for row in record["rows"]:
        assert max(row["float64"].values()) < 1e-10
        assert row["one"]["ratio_to_one"] == 1 and row["two"]["ms"] > 0


def test_what_pytest_counts_is_read(benchmark):
    counted = benchmark("suite").counted
    line = "2 failed, 4225 passed, 1 skipped, 2 warnings in 1502.64s (0:25:02)"
    assert counted(line) == {"failed": 2, "passed": 4225, "skipped": 1}
    assert counted("1 passed, 3 errors in 3.1s") == {"passed": 1, "errors": 3}


# --- mutants

SMALL = '''"""A text with 1 number."""
LIMIT = 3


def clipped(x: int, low: int = 0) -> int:
    """From low to LIMIT."""
    if not x > low:
        raise ValueError(f"need more than {low}")
    return min(x, LIMIT)
'''


def test_a_mutant_changes_one_place_and_never_a_text_or_an_annotation(benchmark):
    found = benchmark("mutants").mutants(SMALL)
    assert {mutant["change"] for mutant in found} == {
        "module: LIMIT = 3 -> LIMIT = 4",
        "clipped: low=0 -> low=1",
        "clipped: not x > low -> +(x > low)",
        "clipped: not x > low -> not x >= low",
        "clipped: not x > low -> not x <= low",
        "clipped: raise ValueError(f'need more than {low}') -> nothing",
        "clipped: return min(x, LIMIT) -> return max(x, LIMIT)",
        "clipped: return min(x, LIMIT) -> return None",
    }
    plain = ast.unparse(ast.parse(SMALL)).splitlines()
    for mutant in found:
        changed = mutant["source"].splitlines()
        assert sum(a != b for a, b in zip(plain, changed, strict=True)) == 1


def test_a_mutant_reaches_functions_that_others_hold_already(benchmark, tmp_path, monkeypatch):
    path = tmp_path / "small_module.py"
    path.write_text(SMALL)
    monkeypatch.syspath_prepend(str(tmp_path))
    small, mutants = importlib.import_module("small_module"), benchmark("mutants")
    held = small.clipped
    found = {mutant["change"]: mutant["source"] for mutant in mutants.mutants(SMALL)}
    seen = {}
    for change, source in found.items():
        mutants.install(small, source)
        try:
            seen[change] = held(1), held(9)
        except ValueError as error:
            seen[change] = str(error)
    del sys.modules["small_module"]
    assert seen["module: LIMIT = 3 -> LIMIT = 4"] == (1, 4)
    assert seen["clipped: low=0 -> low=1"] == "need more than 1"
    assert seen["clipped: return min(x, LIMIT) -> return max(x, LIMIT)"] == (3, 9)
    assert seen["clipped: return min(x, LIMIT) -> return None"] == (None, None)


def test_a_function_that_does_nothing_is_noticed_where_a_test_asks_for_more(
    benchmark, tmp_path, monkeypatch
):
    stubs = benchmark("stubs")
    (tmp_path / "plain_functions.py").write_text(
        "def doubled(x, by=2):\n    return by * x\n\n\ndef unseen(x):\n    return x\n\n\n"
        "class A:\n    def f(self):\n        return 1\n\n\n"
        "class B(A):\n    def f(self):\n        return 1 + super().f()\n"
    )
    test = tmp_path / "test_plain_functions.py"
    test.write_text(
        "from plain_functions import B, doubled\n\ndef test_no():\n    assert 0\n\n"
        "def test_doubled():\n    assert doubled(2) == 4\n\n"
        "def test_f():\n    assert B().f() == 2\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    plain = importlib.import_module("plain_functions")
    monkeypatch.setattr(stubs, "ROOT", tmp_path)
    (failing,) = stubs.tried([test], "none", set(), None)
    assert failing.endswith("::test_no")
    for word, function, noticed in (
        ("doubled", plain.doubled, "test_doubled"),
        ("f", plain.B.f, "test_f"),
        ("unseen", plain.unseen, ""),
    ):
        found = stubs.tried([test], word, {failing}, function)
        assert [name.rpartition("::")[2] for name in found] == ([noticed] if noticed else [])
    assert plain.doubled(2) == 4  # all that happened elsewhere
    del sys.modules["plain_functions"]


def test_public_functions_are_found_with_those_inside_classes(benchmark):
    names = dict(benchmark("stubs").public())
    assert {"acl_lib.losses.nt_xent", "acl_lib.records.Record.read"} <= set(names)
    assert not [name for name in names if name.rpartition(".")[2].startswith("_")]


def test_every_stub_that_is_not_noticed_is_explained():
    told = json.loads((FOLDER.parent / "book/results/stubs.json").read_text())
    explained = json.loads((FOLDER / "mutants_explained.json").read_text())["stubs"]
    assert told["noticed"] == told["functions"] - len(told["not_noticed"])
    for row in told["not_noticed"]:
        assert row["why"] == explained[row["name"]], row["name"]


def test_every_mutant_that_lives_is_explained_and_few_do():
    path = FOLDER.parent / "book/results/mutants.json"
    explained = json.loads((FOLDER / "mutants_explained.json").read_text())
    for name, found in json.loads(path.read_text())["modules"].items():
        assert found["killed"] / found["mutants"] >= 0.85
        assert len(found["survivors"]) == found["mutants"] - found["killed"]
        for survivor in found["survivors"]:
            assert survivor["why"] == explained[name][survivor["change"]], survivor["change"]
