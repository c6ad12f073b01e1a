"""benchmarks/long_corpora.py: the record of a tiny run, and the arithmetic of its projection."""

import json
import multiprocessing.dummy
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def long_corpora():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import long_corpora
    finally:
        sys.path.remove(str(BENCHMARKS))
    return long_corpora


def test_a_tiny_run_writes_the_whole_record_and_leaves_nothing_behind(
    long_corpora, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("resource", reason="counts of page faults are POSIX")
    before = torch.get_num_threads()

    @contextmanager
    def none():  # threads instead of processes: a limit would be this test's own
        yield None, None

    monkeypatch.setattr(long_corpora, "PROCESSES", multiprocessing.dummy)
    monkeypatch.setattr(long_corpora, "memory_group", none)
    (tmp_path / "stores").mkdir()
    options = "--hours 0.02 0.01 --steps 2 --blocks 2 --width 8 --batch 4 --project 100".split()
    try:
        long_corpora.main(
            [*options, "--folder", str(tmp_path / "stores"), "--out", str(tmp_path / "r.json")]
        )
    finally:
        torch.set_num_threads(before)
    assert list((tmp_path / "stores").iterdir()) == []
    assert "runs without" in capsys.readouterr().out
    record = json.loads((tmp_path / "r.json").read_text())

    made = record["prepare"]
    assert [row["clips"] for row in made] == [7, 4]
    for row in made:
        assert row["frames_bytes"] == row["clips"] * 1003 * 96 * 2  # 10 s at 22,050 Hz
        assert row["bytes"] == row["frames_bytes"] + row["clips"] * 2 * 96 * 8
        assert row["hours"] == row["clips"] / 360 and row["cpu_seconds"] > 0
    assert {row["clips"] for row in record["prepare_by_workers"]} == {7}
    assert [row["corpus"] for row in record["steps"]] == ["0.02h", "0.01h"]
    for row in record["steps"]:
        assert row["n"] == 2
        for times in (row["cpu_ms"], row["wall_ms"]):
            assert 0 < times["min"] <= times["median"] <= times["max"]
    stream = record["streaming"]
    assert stream["corpus"] == "0.02h" and not stream["limited"] and stream["limit_bytes"] is None
    assert stream["n"] == stream["wall_ratio"]["n"] == 2
    ahead = record["projection"]
    assert ahead["measured"] is False and ahead["clips"] == 36_000
    assert ahead["steps_per_epoch"] == 9000
    assert ahead["store_gigabytes"] == pytest.approx(100 * made[0]["bytes_per_hour"] / 1e9, abs=0.1)


def test_the_projection_lies_on_the_line_through_the_points(long_corpora):
    slope, intercept = long_corpora.line_through([1.0, 2.0, 4.0], [5.0, 7.0, 11.0])
    assert slope == pytest.approx(2) and intercept == pytest.approx(3)
    slope, intercept = long_corpora.line_through([0, 1, 2], [0, 2, 1])  # by hand: least squares
    assert slope == pytest.approx(0.5) and intercept == pytest.approx(0.5)
    assert long_corpora.line_through([2.0], [10.0]) == (5.0, 0.0)

    made = [
        {"hours": h, "clips": 360 * h, "cpu_seconds": 60 + 36 * h, "bytes": 7e7 * h}
        for h in (1, 2, 10)
    ]
    steps = [{"cpu_ms": {"median": ms}} for ms in (90, 100, 300)]
    found = long_corpora.projection(made, steps, hours=1000, batch=32)
    assert found["prepare_cpu_hours"] == round((60 + 36_000) / 3600, 2)
    assert found["store_gigabytes"] == 70 and found["clips"] == 360_000
    assert found["steps_per_epoch"] == 11_250
    assert found["epoch_cpu_hours"] == round(11_250 * 0.1 / 3600, 2)


def test_a_corpus_of_more_hours_lists_its_clips_again(long_corpora):
    sounds = [long_corpora.Sound(Path(f"{n}.flac")) for n in range(5)]
    corpus = long_corpora.listed(sounds, 12 / 360)
    assert corpus.clips == [*sounds, *sounds, *sounds[:2]]
