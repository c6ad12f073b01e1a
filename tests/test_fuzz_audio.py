"""A handful of the fuzz run's files, and files that the run must call wrong when they are."""

import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import fuzz_audio as fuzz

sys.path.pop(0)
WHOLE = fuzz.sounds(np.random.default_rng(fuzz.SEED))
DRAWS, fuzz_load = count(1), fuzz.load_waveform


def test_damaged_files_are_read_rightly_or_refused_by_name(tmp_path):
    outcomes = []
    for number in range(150):
        suffix, change, raw = fuzz.file_of(number, WHOLE)
        path = tmp_path / f"{number}.{suffix}"
        path.write_bytes(raw)
        outcome, why = fuzz.judge(path, raw)
        assert outcome in ("read", "refused"), (number, change, why)
        outcomes.append(outcome)
    assert 20 < outcomes.count("read") < 130


def test_every_kind_of_file_is_read_when_nothing_was_changed(tmp_path):
    for number, (suffix, raw) in enumerate(WHOLE):
        path = tmp_path / f"{number}.{suffix}"
        path.write_bytes(raw)
        assert fuzz.judge(path, raw) == ("read", "")


def test_one_sample_and_lengths_that_no_file_has(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "LONGEST", 60)
    for name, path in fuzz.write_unusual(tmp_path).items():
        outcome, why = fuzz.judge(path, path.read_bytes())
        empty = name.startswith(("no_sample", "empty", "header", "claims"))
        assert outcome == ("refused" if empty else "read"), (name, why)


def in_silence(wav):
    wav[len(wav) // 2 :] = 0
    return wav


@pytest.mark.parametrize(
    ("reader", "verdict"),
    [
        (lambda path: in_silence(fuzz_load(path)), ("read", "")),  # levels are not judged
        (lambda path: fuzz_load(path)[:-2000], ("silently wrong", "0.5")),
        (lambda path: fuzz_load(path) * 3, ("silently wrong", "out of range")),
        (lambda path: fuzz_load(path) / next(DRAWS), ("silently wrong", "second time")),
        (lambda path: 1 / 0, ("other error", "ZeroDivisionError")),
    ],
)
def test_the_judge_sees_what_is_wrong(tmp_path, monkeypatch, reader, verdict):
    path = tmp_path / "a.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(11_025), 22_050)
    monkeypatch.setattr(fuzz, "load_waveform", reader)
    outcome, why = fuzz.judge(path, path.read_bytes())
    assert outcome == verdict[0] and verdict[1] in why


def test_the_judge_sees_a_reader_that_ignores_a_checksum(tmp_path):
    """What the judge's own readers say of a damaged page of Ogg and of samples of Flac."""
    path = tmp_path / "a.ogg"
    soundfile.write(path, np.zeros(22_050), 22_050)
    raw = path.read_bytes()
    assert fuzz._pages_are_whole(raw)
    assert not fuzz._pages_are_whole(raw[:-1] + bytes([raw[-1] ^ 1]))
    path = tmp_path / "a.flac"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal((999, 2)), 22_050)
    raw = bytearray(path.read_bytes())
    assert fuzz._is_of_its_md5(path, bytes(raw))
    raw[30] ^= 1  # within the MD5
    assert not fuzz._is_of_its_md5(path, bytes(raw))


def test_a_process_that_dies_or_hangs_is_told(monkeypatch):
    monkeypatch.setattr(fuzz, "LIMIT_SECONDS", 0.2)
    assert fuzz.watched(lambda found: found.send(1)) == ([1], "")
    assert fuzz.watched(lambda found: fuzz.os.abort()) == ([], "crash")
    assert fuzz.watched(lambda found: fuzz.time.sleep(60)) == ([], "hang")
