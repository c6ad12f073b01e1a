"""Rows of the page on speed are those of the records; an aim is reached only where it is."""

import copy
from pathlib import Path

import pytest

from acl_lib import costs

RESULTS = Path(__file__).parents[1] / "book" / "results"
LARGE = {
    "rows": [
        {
            "loss": "nt_xent",
            "features": kind,
            "rows": rows,
            "whole_extra_mb": 4.0 * rows,
            "tiles_extra_mb": 0.01 * rows,
            "whole_cpu_ms": 2e3,
            "tiles_cpu_ms": 1e3,
            "time_ratio": 0.5,
            "time_ratio_range": [0.4, 0.9],
        }
        for kind in ("random", "tight")
        for rows in (8192, 16384)
    ],
    "largest": [
        {
            "loss": "nt_xent",
            "features": "tight",
            "rows": 65536,
            "extra_mb": 700.0,
            "peak_mb": 1500.0,
        }
    ],
    "errors": [
        {"whole_float32_gradient": x, "tiles_float32_gradient": 2 * x, "tiles_float64_gradient": y}
        for x, y in ((1e-6, 1e-15), (3e-6, 1e-14))
    ],
}
SEVERAL = {
    "rows": [
        {
            "loss": "ACL",
            "float32": {
                "loss_difference": 1e-6,
                "gradient_difference": 2e-5,
                "gradient_difference_of_threads": 3e-5,
            },
            "float64": {"loss_difference": 1e-15, "gradient_difference": 4e-14},
            "two": {"ratio_to_one": 0.7, "ratio_range": [0.6, 0.8]},
            "one, two threads": {"ratio_to_one": 0.9, "ratio_range": [0.8, 1.0]},
        }
    ]
}


@pytest.fixture
def records():
    read = costs.read(RESULTS)
    return copy.deepcopy(read) | {"large_batches": LARGE, "several_processes": SEVERAL}


def test_what_was_not_measured_is_none(tmp_path):
    assert set(costs.read(tmp_path)) == set(costs.NAMES)
    assert not any(costs.read(tmp_path).values())


def test_others_stand_beside_ours_with_their_range(records):
    found = costs.beside_others(records)
    assert not any("acl_lib" in name for name in found)
    (row,) = (
        r
        for r in records["losses"]["rows"]
        if (r["loss"], r["by"], r["clips"]) == ("nt_xent", "lightly", 2048)
    )
    ratio = row["ratio_to_ours"]
    assert found["nt_xent: lightly"] == (ratio["median"], ratio["min"], ratio["max"])
    assert {"views: loop", "views: DataLoader, 2 workers"} <= set(found)


def test_memory_of_tiles_goes_on_to_the_largest_batch():
    found = costs.memory(LARGE, ["nt_xent"])
    assert found["nt_xent, whole"] == [(8192, 32768.0), (16384, 65536.0)]
    assert found["nt_xent, tiles"] == [(8192, 81.92), (16384, 163.84), (65536, 700.0)]


def test_tables_have_a_line_for_every_row():
    table = costs.large_batches(LARGE).splitlines()
    assert table[2:] == [
        f"nt_xent | {kind} | 2.0 | 1.0 | 0.50 (0.40 to 0.90) | 164" for kind in ("random", "tight")
    ]
    last = costs.shared_batches(SEVERAL).splitlines()[-1]
    assert last == "ACL | 2e-05 | 3e-05 | 4e-14 | 0.70 (0.60 to 0.80) | 0.90 (0.80 to 1.00)"
    assert costs.rounding(LARGE) == "matrix 3e-06, tiles 6e-06; in float64 tiles 1e-14"


def test_a_step_without_bfloat16_has_no_line():
    plain = {"width": 16, "precision": "float32", "step_ms": 20.0}
    half = {
        "width": 16,
        "precision": "bfloat16",
        "step_ms": 10.0,
        "clips_per_cpu_second": 100.0,
        "share_outside_network": 0.25,
    }
    assert costs.steps({"rows": [plain, half]}).splitlines()[-1] == "16 | 100 | 2.00 | 25%"
    assert len(costs.steps({"rows": [plain]}).splitlines()) == 2


def reached(records) -> dict[str, str]:
    lines = (line.split(" | ") for line in costs.aims(records).splitlines()[2:])
    return {aim: held for aim, held, _, _ in lines}


def test_an_aim_is_reached_only_where_its_record_says_so(records):
    records["gpu_protocol"] = None
    before = reached(records)
    assert before["the protocol in 10 minutes on a GPU"] == "not measured"
    assert before["16,384 rows within 200 MB"] == "yes"
    records["large_batches"] = copy.deepcopy(LARGE)
    records["large_batches"]["rows"][-1]["tiles_extra_mb"] = 201
    records["large_batches"]["rows"][0]["time_ratio_range"] = [0.9, 1.1]
    records["large_batches"]["largest"][0]["peak_mb"] = 25e3
    for row in records["step"]["rows"]:
        row["step_ms"] = 100.0
    records["several_processes"] = copy.deepcopy(SEVERAL)
    records["several_processes"]["rows"][0]["float64"]["loss_difference"] = 1e-3
    records["long_corpora"]["streaming"]["wall_ratio"]["median"] = 1.3
    slow = {"projected_whole_minutes": {"eager": 12.0, "compiled": 11.0}}
    records["gpu_protocol"] = {"recipes": [slow, {"projected_whole_minutes": {"eager": 9.0}}]}
    after = reached(records)
    changed = [aim for aim in before if after[aim] != before[aim]]
    assert [after[aim] for aim in changed] == ["no"] * 7
    records["gpu_protocol"]["recipes"][0]["projected_whole_minutes"]["compiled"] = 9.9
    assert reached(records)["the protocol in 10 minutes on a GPU"] == "yes"


def test_projections_stand_at_their_size(records):
    made, far = costs.hours(records["long_corpora"])
    assert made.keys() == far.keys() and far["CPU seconds"][0] == 5000
    assert max(hours for hours, _ in made["CPU seconds"]) == 20
    made, far = costs.measures(records["metrics"])
    assert far["uniformity"][0] == 1e6 and max(made["tolerance"])[0] == 1_000_000
