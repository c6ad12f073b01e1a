"""The published tables: whole numbers of clips or patches, and what follows from them alone."""

import math

import numpy as np
import pytest
from scipy import stats

from acl_lib.__main__ import main
from acl_lib.published import (
    METRICS,
    TABLES,
    TEST_CLIPS,
    TEST_PATCHES,
    accuracy_intervals,
    compare_systems,
    compare_temperatures,
    fitting_denominators,
    sweep_noise,
    tables_report,
    values_of,
)

SWEEPS = [(s, c) for s in ("alpha_sweep", "supervised_alpha_sweep") for c in TABLES[s].metrics]


def is_share(percent, of, digits):
    return round(100 * round(percent / 100 * of) / of, digits) == percent


@pytest.mark.parametrize("name", TABLES)
def test_every_row_has_every_column(name):
    table = TABLES[name]
    assert {len(row) for row in table.rows} == {len(table.columns)}
    assert len(set(table.column(table.columns[0]))) == len(table.rows) or name == "temperature"


def test_linear_micro_accuracies_are_whole_numbers_of_patches():
    values = TABLES["alpha_sweep"].column("linear_micro")
    values += TABLES["temperature"].column("linear_micro")
    assert all(is_share(value, TEST_PATCHES, 3) for value in values)
    assert not all(is_share(value, TEST_CLIPS, 3) for value in values)


def test_supervised_accuracies_are_whole_numbers_of_clips():
    table = TABLES["supervised_alpha_sweep"]
    for part in table.columns[1:]:
        assert all(is_share(value, TEST_CLIPS, 1) for value in table.column(part))


def test_what_the_paper_prints_is_in_the_sweeps():
    sweep = TABLES["supervised_alpha_sweep"]
    alphas = sweep.column("alpha")
    for part, ce, margin, alpha in TABLES["supervised"].rows:
        values = sweep.column(part)
        assert values[alphas.index(1.0)] == ce
        assert values[alphas.index(alpha)] == margin == max(values)
    linear = dict(zip(*map(TABLES["alpha_sweep"].column, ("alpha", "linear_micro")), strict=True))
    printed = dict(TABLES["temperature"].rows[i][1:3] for i in (2, 3))  # temperature 0.2
    assert printed == {1.0: linear[1.0], 0.3: linear[0.3]}
    for _system, accuracy, alpha in TABLES["systems"].rows[2:]:
        assert round(linear[alpha], 1) == accuracy


def test_an_unknown_column_names_the_known():
    with pytest.raises(ValueError, match=r"linear_macro"):
        TABLES["alpha_sweep"].column("macro")
    with pytest.raises(ValueError, match=r"'alpha' measures nothing; linear_micro, "):
        TABLES["alpha_sweep"].metric("alpha")


# --- metrics


@pytest.mark.parametrize("name", TABLES)
def test_every_column_was_set_or_has_a_metric(name):
    table = TABLES[name]
    was_set = {"alpha", "temperature", "part", "system"}
    assert set(table.columns) == table.metrics.keys() | (was_set & set(table.columns))
    for column in table.metrics:
        assert len(table.metric(column)) == len(table.rows)
        assert set(table.metric(column)) <= METRICS.keys()


def test_one_table_of_the_paper_holds_two_metrics():
    assert TABLES["systems"].metric("accuracy") == ("clips", "clips", "patches", "patches")
    assert set(TABLES["alpha_sweep"].metric("linear_micro")) == {"patches"}
    assert set(TABLES["alpha_sweep"].metric("finetuned_clean_macro")) == {"macro"}


# --- denominators


def test_the_self_supervised_values_count_patches():
    values = values_of("patches")
    assert len(values) == 50
    multiples = [TEST_PATCHES * k for k in (1, 2, 3, 4)]
    assert fitting_denominators(values, up_to=40_000) == multiples
    assert fitting_denominators(values_of("macro"), up_to=40_000) == []


def test_the_supervised_values_may_count_clips():
    """One digit behind the point tells less: 29 of a thousand denominators fit them all."""
    fitting = fitting_denominators(values_of("clips"), up_to=1000, digits=1)
    assert TEST_CLIPS in fitting and len(fitting) == 29


@pytest.mark.parametrize("digits", [0, 1, 2])
def test_a_denominator_fits_where_some_numerator_prints_the_value(digits):
    values = [round(100 * k / 37, digits) for k in (5, 11, 30)]
    fitting = fitting_denominators(values, up_to=300, digits=digits)
    assert {37, 74, 111} <= set(fitting)
    unit = 10.0**-digits
    for n in range(1, 301):
        shares = [100 * k / n for k in range(n + 1)]
        nearest = [min(abs(share - value) for share in shares) for value in values]
        assert (n in fitting) == (max(nearest) <= unit / 2 * (1 + 1e-6))


def test_ties_may_be_rounded_either_way():
    assert 8 in fitting_denominators([12.5], digits=1, up_to=8)
    assert 8 in fitting_denominators([12.0], digits=0, up_to=8)
    assert 8 in fitting_denominators([13.0], digits=0, up_to=8)
    assert fitting_denominators([0.0, 100.0], up_to=3) == [1, 2, 3]


@pytest.mark.parametrize("values", [[], [101.0], [-0.1], [math.nan]])
def test_impossible_percentages_are_told(values):
    with pytest.raises(ValueError, match="percentages from 0 to 100"):
        fitting_denominators(values)


# --- intervals and tests


def test_intervals_are_wilsons_of_whole_clips():
    rows = accuracy_intervals(TABLES["systems"], "accuracy")
    assert [row[0] for row in rows] == pytest.approx([0.701, 0.736, 0.742, 0.771])
    for (_, *ends), k in zip(rows, (664, 697, 703, 730), strict=True):
        expected = stats.binomtest(k, 947).proportion_ci(method="wilson")
        assert ends == pytest.approx([*expected])
    with pytest.raises(ValueError, match="'tolerance' is no accuracy but mean cosine"):
        accuracy_intervals(TABLES["temperature"], "tolerance")


def test_the_five_comparisons_of_the_paper():
    """By hand: (b - a) over the deviation of a difference of two shares of 947 clips."""
    found = {row["what"]: row for row in compare_systems()}
    expected = {  # percent, z and p as computed from the two shares by other code
        "self-supervised": (74.2, 77.1, 1.47, 0.14),
        "supervised, all": (70.1, 73.6, 1.69, 0.09),
        "supervised, noisy": (66.4, 68.3, 0.88, 0.38),
        "supervised, noisy_small": (33.7, 39.9, 2.80, 0.005),
        "supervised, clean": (60.2, 64.5, 1.93, 0.053),
    }
    assert list(found) == [
        "self-supervised",
        *(f"supervised, {part}" for part in TABLES["supervised"].column("part")),
    ]
    for what, (a, b, z, p) in expected.items():
        row = found[what]
        assert (100 * row["a"], 100 * row["b"]) == pytest.approx((a, b))
        assert row["z"] == pytest.approx(z, abs=5e-3) and row["p"] == pytest.approx(p, rel=0.04)
        pooled = (a + b) / 200
        by_hand = (b - a) / 100 / math.sqrt(2 * pooled * (1 - pooled) / 947)
        assert row["z"] == pytest.approx(by_hand)
        assert row["p"] == pytest.approx(2 * stats.norm.sf(by_hand))
        # normal intervals, as the authors' script has them, say the same of both rules
        half_a, half_b = (1.96 * math.sqrt(x * (1 - x) / 947) for x in (a / 100, b / 100))
        assert row["overlap"] is (a / 100 + half_a >= b / 100 - half_b)
        assert row["outside"] is (b / 100 > a / 100 + half_a)
        assert row["interval_a"] == pytest.approx([a / 100 - half_a, a / 100 + half_a], abs=2e-3)
    assert [w for w, row in found.items() if not row["overlap"]] == ["supervised, noisy_small"]
    assert [w for w, row in found.items() if not row["outside"]] == ["supervised, noisy"]
    assert [row["metric"] for row in found.values()] == ["patches"] + ["clips"] * 4


# --- sweeps


# over alpha: deviation, von Neumann's ratio, mean gain, better ones, best gain, luck of the best
NOISE = {
    "linear_micro": (1.86, 1.89, 0.54, 7, 2.91, 2.8),
    "linear_macro": (1.26, 1.97, 0.33, 6, 2.28, 1.9),
    "finetuned_noisy_micro": (2.42, 1.48, -3.47, 1, 0.02, 3.2),
    "finetuned_noisy_macro": (1.66, None, -2.12, 2, 0.44, None),
    "finetuned_clean_micro": (0.99, 1.77, -0.42, 4, 0.80, 1.4),
    "finetuned_clean_macro": (0.57, None, -0.38, 2, 0.91, None),
    "clean": (2.62, 1.09, 0.09, 5, 4.3, 2.9),
    "all": (1.78, 0.79, 1.26, 7, 3.5, 1.7),
    "noisy": (1.16, 0.93, 0.51, 6, 1.9, 1.2),
    "noisy_small": (2.98, 1.79, 1.77, 5, 6.2, 4.2),
}


@pytest.mark.parametrize(("sweep", "column"), SWEEPS)
def test_how_noisy_the_sweeps_are(sweep, column):
    got = sweep_noise(sweep, column)
    names = ("sd", "ratio", "mean_gain", "better", "best_gain", "luck_from_neighbours")
    for name, expected in zip(names, NOISE[column], strict=True):
        if expected is not None:
            digits = len(str(float(expected)).partition(".")[2])
            assert got[name] == pytest.approx(expected, abs=0.55 * 10.0**-digits), name
    values = np.array(TABLES[sweep].column(column))
    assert got["k"] == len(values) - 1 == {"alpha_sweep": 10}.get(sweep, 9)
    assert got["best_alpha"] == TABLES[sweep].column("alpha")[values[:-1].argmax()]
    assert got["metric"] == TABLES[sweep].metric(column)[0]
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(40_000, got["k"])).max(1).mean()
    assert got["luck"] == pytest.approx(noise * values.std(ddof=1), rel=0.02)
    steps = math.sqrt(np.mean(np.diff(values) ** 2) / 2)
    assert got["sd_from_neighbours"] == pytest.approx(steps)
    assert got["luck_from_neighbours"] == pytest.approx(noise * steps, rel=0.02)


def test_only_two_supervised_sweeps_are_smoother_than_chance():
    p = {column: sweep_noise(sweep, column)["p"] for sweep, column in SWEEPS}
    assert {column for column, value in p.items() if value < 0.05} == {"all", "noisy"}
    assert all(value > 0.15 for column, value in p.items() if "_m" in column)


def test_unknown_sweeps_are_told():
    with pytest.raises(ValueError, match="no sweep over alpha 'temperature'"):
        sweep_noise("temperature", "linear_micro")
    with pytest.raises(ValueError, match="'alpha' measures nothing"):
        sweep_noise("alpha_sweep", "alpha")


def test_over_temperatures_acl_is_compared_in_pairs():
    got = compare_temperatures()
    assert got["temperatures"] == pytest.approx([n / 10 for n in range(1, 11)])
    assert got["alphas"] == [0.7, 0.3, 0.4, 0.8, 0.3, 0.7, 0.2, 0.9, 0.3, 0.9]
    assert (got["plain"][1], got["acl"][1]) == (74.16, 77.07)
    means = {"plain": 74.68, "acl": 76.59, "differences": 1.92}
    assert got["mean"] == pytest.approx(means, abs=6e-3)
    assert got["sd"] == pytest.approx({"plain": 1.64, "acl": 1.02, "differences": 1.53}, abs=6e-3)
    paired = stats.ttest_rel(got["acl"], got["plain"]).confidence_interval()
    assert got["interval"] == pytest.approx([*paired])


# --- in print


def test_the_report_prints_what_the_functions_say():
    said = tables_report()
    for row in compare_systems():
        line = next(line for line in said.splitlines() if line.startswith(row["what"] + "  "))
        assert f"{100 * row['a']:.1f}" in line and f"{row['z']:.2f}" in line
        assert f"{row['p']:.2g}" in line and ("overlap" in line) is row["overlap"]
    for sweep, column in SWEEPS:
        line = next(line for line in said.splitlines() if line.startswith(column + "  "))
        got = sweep_noise(sweep, column)
        for key in ("sd", "ratio", "best_gain", "luck", "luck_from_neighbours"):
            assert f"{got[key]:.2f}" in line
        assert f"{got['p']:.3f}" in line and f" {got['metric']} " in line
    assert "+1.92 (+0.82 to +3.01)" in said and "1.64" in said and "1.02" in said
    assert "50 values" in said and "8866" in said and "29 of the numbers up to 1000" in said


def test_the_command_needs_no_features_for_the_tables(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("ACL_DATA", str(tmp_path))
    assert main(["published", "--tables"]) == 0
    assert capsys.readouterr().out == tables_report() + "\n"
    for option in (["--download"], ["--record", "x.json"], ["--root", "x"]):
        assert main(["published", "--tables", *option]) == 1
        assert f"{option[0]} is for the features" in capsys.readouterr().err
