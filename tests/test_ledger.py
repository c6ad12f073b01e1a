"""The ledger: a row for each record, representation and reader, each number as in its record."""

import shutil
from dataclasses import replace

import pandas
import pytest

from acl_lib import ledger as module
from acl_lib.ledger import GEOMETRY, SETTINGS, ledger, write_csv
from acl_lib.publish import RESULTS
from acl_lib.records import Record, read_all

PLACE = RESULTS / "sweeps" / "esc10-quick"


def some(name="acl,seed=0.json"):
    return Record.read(PLACE / name)


def test_every_number_is_the_records():
    record = some()
    rows = ledger([record.path])
    asked = [(kind, reader) for kind, readers in record.results.items() for reader in readers]
    assert list(zip(rows.representation, rows.reader, strict=True)) == asked
    for row in rows.itertuples():
        got = record.results[row.representation][row.reader]
        assert (row.accuracy, row.n, row.balanced) == (got["accuracy"], got["n"], got["balanced"])
        assert [row.low, row.high] == got["interval"]
        assert [row.low_by_source, row.high_by_source] == got["interval_by_source"]
        space = {"trained": "h", "untrained": "untrained h"}.get(row.representation)
        for name in GEOMETRY:
            value = getattr(row, name)
            assert value == record.geometry[space][name] if space else pandas.isna(value)
    first = rows.iloc[0]
    assert (first.recipe, first.corpus, first.profile, first.seed) == ("acl", "esc10", "quick", 0)
    assert (first.alpha, first.temperature, first.width, first.epochs) == (0.3, 0.2, 16, 20)
    assert first.settings == "acl,seed=0" and first.commit == record.commit
    assert set(SETTINGS) <= set(rows.columns)


def test_a_record_of_other_code_is_stale(monkeypatch):
    record = some()
    monkeypatch.setattr(module, "code_fingerprint", lambda: record.code)
    assert not ledger([record.path]).stale.any()
    monkeypatch.setattr(module, "code_fingerprint", lambda: "other")
    assert ledger([record.path]).stale.all()


def test_all_records_of_the_book_are_in_it_and_a_copy_counts_once(tmp_path):
    rows = ledger([RESULTS])
    assert rows.file.nunique() == len(read_all([RESULTS]))
    shutil.copy(PLACE / "acl,seed=0.json", tmp_path / "copy.json")
    one = ledger([PLACE / "acl,seed=0.json", tmp_path / "copy.json"])
    assert one.file.nunique() == 1
    other = replace(some(), path=tmp_path / "other.json", commit="another")
    other.write()
    both = ledger([PLACE / "acl,seed=0.json", tmp_path / "other.json"])
    assert both.file.nunique() == 2  # made again is another observation
    replace(some(), path=tmp_path / "gpu.json", cost=some().cost | {"kind": "cuda"}).write()
    assert ledger([PLACE / "acl,seed=0.json", tmp_path / "gpu.json"]).device.nunique() == 2
    replace(some(), path=tmp_path / "own.json", recipe=replace(some().recipe, name="own")).write()
    own = ledger([tmp_path / "own.json"])  # a recipe from a file has a name of its own
    assert own.settings[0] == "own,alpha=0.3,seed=0"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no record in"):
        ledger([tmp_path / "empty"])


def test_the_file_is_whole_or_not_there_and_pandas_reads_it(tmp_path, monkeypatch):
    rows = ledger([PLACE / "acl,seed=0.json"])
    path = tmp_path / "deep" / "ledger.csv"
    write_csv(rows, path)
    read = pandas.read_csv(path)
    assert list(read.columns) == list(rows.columns) and len(read) == len(rows)
    assert read.accuracy.tolist() == pytest.approx(rows.accuracy.tolist(), rel=1e-5)
    assert read.stale.dtype == bool and read.seed.dtype == "int64"

    def full(*a, **k):
        raise OSError("no space left")

    before = path.read_bytes()
    monkeypatch.setattr(pandas.DataFrame, "to_csv", full)
    with pytest.raises(OSError, match="no space"):
        write_csv(rows, path)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == [path.name]
