"""The published tables: whole numbers of clips or patches, and what the paper quotes of them."""

import pytest

from acl_lib.published import TABLES, TEST_CLIPS, TEST_PATCHES


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
