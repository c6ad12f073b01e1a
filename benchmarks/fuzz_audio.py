"""Thousands of damaged and lying sound files: is each one read rightly, or refused by its name?

Sounds of every format and width, and real ones where they are, are changed by a seed: cut, bits
turned over, lengths, channels and rates that lie, numbers that are none, parts twice or in another
order; and some are only unusual: one sample, no sample, two hours of nothing. Each is read by
`load_waveform`, twice, and by the validation of corpora, in processes that have 4 GB and 300 s for
a file; a process that dies or hangs is named with its file.

A file that is read must give finite numbers up to 1, the same both times, be found whole by the
validation, and be what a reader of its own says: Python's `wave` where the file is plain PCM, the
pages' checksums where it is Ogg, the MD5 of its samples where it is Flac. Prints a table, writes
book/results/fuzz_audio.json.

    python benchmarks/fuzz_audio.py [--files 6000]
"""

import argparse
import hashlib
import io
import multiprocessing
import os
import resource
import struct
import tempfile
import time
import wave
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import soundfile
import torch
from timing import peak_mb, write_record

from acl_lib.datasets import validation
from acl_lib.features import LogMel, UnreadableAudioError, load_waveform

RECORD = Path(__file__).parents[1] / "book" / "results" / "fuzz_audio.json"
SEED = 0
LIMIT_BYTES = 4 << 30  # of address space beyond what a process has when it starts
LIMIT_SECONDS = 300
LONGEST = 7200  # seconds
KINDS = {  # format -> subtypes
    "wav": ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"],
    "flac": ["PCM_16", "PCM_24"],
    "ogg": ["VORBIS", "OPUS"],
    "mp3": ["MPEG_LAYER_III"],
}
OUTCOMES = ("read", "refused", "crash", "hang", "other error", "silently wrong")


def sounds(rng: np.random.Generator) -> list[tuple[str, bytes]]:
    """Whole files of every kind, a second or less, of one, two and six channels."""
    found = []
    for suffix, subtypes in KINDS.items():
        for subtype in subtypes:
            for channels in (1, 2) if suffix == "mp3" else (1, 2, 6):
                rate = 48_000 if subtype == "OPUS" else 22_050
                t = np.arange(rate // 2)[:, None] / rate
                tones = np.sin(2 * np.pi * t * rng.uniform(200, 2000, channels))
                x = 0.3 * tones + 0.05 * rng.standard_normal((len(t), channels))
                file = io.BytesIO()
                soundfile.write(file, x, rate, format=suffix, subtype=subtype)
                found.append((suffix, file.getvalue()))
    folder = Path(os.environ.get("ACL_DATA", "")) / "esc10"
    real = sorted(folder.rglob("*.ogg"))[::100] if "ACL_DATA" in os.environ else []
    return found + [("ogg", path.read_bytes()) for path in real]


# --- what is done to a file ----------------------------------------------------------------------


def cut(raw: bytes, rng) -> bytes:
    return raw[: rng.integers(len(raw))]


def flip_in_header(raw: bytes, rng) -> bytes:
    return _flip(raw, rng.integers(min(len(raw), 128), size=rng.integers(1, 4)), rng)


def flip_in_body(raw: bytes, rng) -> bytes:
    return _flip(raw, rng.integers(min(128, len(raw) - 1), len(raw), rng.integers(1, 9)), rng)


def _flip(raw: bytes, places, rng) -> bytes:
    out = bytearray(raw)
    for at in places:
        out[at] ^= 1 << rng.integers(8)
    return bytes(out)


def lie(raw: bytes, rng) -> bytes:
    """A field of the header, of 1, 2, 4 or 8 bytes, says nothing, too much or too little."""
    width = int(rng.choice([1, 2, 4, 8]))
    value = int(rng.choice([0, 1, 2, (1 << 8 * width) - 1, 1 << (8 * width - 1), 12_345]))
    at = int(rng.integers(4, 120))
    order = "little" if rng.integers(2) else "big"
    return raw[:at] + (value % (1 << 8 * width)).to_bytes(width, order) + raw[at + width :]


def lie_in_wav(raw: bytes, rng) -> bytes:
    """Channels, rate, width or length of a WAV file; a field of another format."""
    at = raw.find(b"fmt ")
    if at < 0:
        return lie(raw, rng)
    data = raw.find(b"data")
    place, width, values = [
        (at + 10, 2, [0, 1, 2, 3, 255, 65_535]),  # channels
        (at + 12, 4, [0, 1, 999, 8000, 4_000_000_000]),  # samples a second
        (at + 22, 2, [0, 1, 8, 16, 24, 32, 64, 65_535]),  # bits
        (data + 4, 4, [0, 1, 1000, 1 << 24, (1 << 31) - 1, (1 << 32) - 1]),  # bytes of sound
        (4, 4, [0, 1, 1000, 1 << 24, (1 << 32) - 1]),  # bytes in all
    ][rng.integers(5)]
    return raw[:place] + int(rng.choice(values)).to_bytes(width, "little") + raw[place + width :]


def move(raw: bytes, rng) -> bytes:
    """A piece out of the file stands elsewhere as well, or no longer."""
    a, b = sorted(rng.integers(len(raw), size=2))
    at = rng.integers(len(raw))
    return raw[:at] + raw[a:b] + raw[at:] if rng.integers(2) else raw[:a] + raw[b:]


def garbage(raw: bytes, rng) -> bytes:
    more = rng.bytes(int(rng.integers(1, 4000)))
    at = int(rng.choice([0, rng.integers(len(raw)), len(raw)]))
    return raw[:at] + more + raw[at + (len(more) if rng.integers(2) else 0) :]


def no_numbers(raw: bytes, rng) -> bytes:
    """NaN, infinities and huge numbers among the samples of a file of floats."""
    file, x = io.BytesIO(), 0.3 * rng.standard_normal((2000, int(rng.integers(1, 3))))
    some = rng.integers(len(x), size=rng.integers(1, 20))
    x[some] = rng.choice([np.nan, np.inf, -np.inf, 3e38, -1e300])
    with np.errstate(over="ignore"):
        soundfile.write(file, x, 22_050, format="WAV", subtype=str(rng.choice(["FLOAT", "DOUBLE"])))
    return file.getvalue()


def as_it_is(raw: bytes, rng) -> bytes:
    return raw


CHANGES: dict[str, Callable] = {
    change.__name__: change
    for change in (
        cut, flip_in_header, flip_in_body, lie, lie_in_wav, move, garbage, no_numbers, as_it_is
    )
}  # fmt: skip


def file_of(number: int, whole: list[tuple[str, bytes]]) -> tuple[str, str, bytes]:
    """Format, change and content of the file with a number; the same in every process."""
    rng = np.random.default_rng([SEED, number])
    name = list(CHANGES)[number % len(CHANGES)]
    some = [item for item in whole if item[0] == "wav"] if name == "lie_in_wav" else whole
    suffix, raw = some[rng.integers(len(some))]
    suffix = "wav" if name == "no_numbers" else suffix
    out = CHANGES[name](raw, rng)
    if rng.integers(20) == 0:  # by another name
        suffix = str(rng.choice(list(KINDS)))
    return suffix, name, out


def write_unusual(folder: Path) -> dict[str, Path]:
    """Files that are whole but unusual, by name; the longest are written a minute at a time."""
    paths = {}
    for seconds, kind in ((1 / 22_050, "one_sample"), (0, "no_sample"), (LONGEST, "two_hours")):
        for suffix in ("wav", "flac", "ogg"):
            path = paths[f"{kind}.{suffix}"] = folder / f"{kind}.{suffix}"
            with soundfile.SoundFile(path, "w", 22_050, 2) as file:
                for _ in range(round(seconds * 22_050) // 1_323_000):
                    file.write(np.zeros((1_323_000, 2), "float32"))
                if 0 < seconds < 1:
                    file.write(np.full((1, 2), 0.5))
    path = paths["claims_2_to_the_36.flac"] = folder / "claims.flac"
    soundfile.write(path, np.zeros(22_050), 22_050)
    raw = bytearray(path.read_bytes())
    raw[21] |= 0x0F  # the upper 4 of 36 bits of the number of samples
    path.write_bytes(raw)
    path = paths["empty.wav"] = folder / "empty.wav"
    path.write_bytes(b"")
    path = paths["header_only.wav"] = folder / "header_only.wav"
    path.write_bytes(b"RIFF" + struct.pack("<I", 36) + b"WAVE")
    return paths


# --- what came of it -----------------------------------------------------------------------------


def judge(path: Path, raw: bytes) -> tuple[str, str]:
    """One of `OUTCOMES`, and what is to be said of it."""
    try:
        wav = load_waveform(path)
    except UnreadableAudioError as error:
        if str(path) not in str(error):
            return "other error", f"names no file: {error}"
        reading = validation._read(path)
        few = reading.seconds * 22_050 < 1 or not reading.finite
        if not reading.reason and not few and "infinite" not in str(error):
            return "silently wrong", f"the validation finds it whole: {error}"
        return "refused", ""
    except Exception as error:
        return "other error", repr(error)
    wrong = _wrong(wav, path, raw)
    return ("silently wrong", wrong) if wrong else ("read", "")


def _wrong(wav: torch.Tensor, path: Path, raw: bytes) -> str:
    reading = validation._read(path)
    if reading.reason or not reading.finite:
        return f"the validation says: {reading.reason or 'NaN or infinity'}"
    if not len(wav) or not wav.isfinite().all() or wav.abs().max() > 1:
        return "numbers out of range"
    if not torch.equal(wav, load_waveform(path)):
        return "other numbers the second time"
    if abs(len(wav) / 22_050 - reading.seconds) > 0.01:
        return f"{len(wav) / 22_050:.3f} s of {reading.seconds:.3f}"
    if not raw:
        return ""  # too long for readers in Python
    kind = soundfile.info(path)
    if kind.format == "WAV" and (told := _by_wave(raw)) is not None:
        samples = soundfile.read(path, dtype="float64", always_2d=True)[0]
        if samples.shape != told.shape or np.abs(samples - told).max(initial=0) > 1e-6:
            return f"Python's wave reads {told.shape}, other than {samples.shape}"
    if kind.format == "OGG" and not _pages_are_whole(raw):
        return "a page of Ogg has another checksum"
    if kind.format == "FLAC" and not _is_of_its_md5(path, raw):
        return "the samples have another MD5"
    return ""


def _by_wave(raw: bytes) -> np.ndarray | None:
    """Samples of plain PCM as Python's own module reads them; None where it does not.

    The length of the whole file, which many programs get wrong, is put right for it; that of the
    samples stays.
    """
    whole = raw[:4] + struct.pack("<I", len(raw) - 8) + raw[8:]
    try:
        with wave.open(io.BytesIO(whole)) as file:
            channels, width = file.getnchannels(), file.getsampwidth()
            raw = file.readframes(file.getnframes())
    except (wave.Error, EOFError, ValueError, struct.error):
        return None
    raw = raw[: len(raw) // (channels * width) * channels * width]
    if width == 1:
        x = (np.frombuffer(raw, np.uint8) - 128.0) / 128
    elif width in (2, 4):
        x = np.frombuffer(raw, f"<i{width}") / 2.0 ** (8 * width - 1)
    elif width == 3:
        parts = np.frombuffer(raw, np.uint8).reshape(-1, 3).astype(np.int64)
        x = parts @ [1, 256, 65_536]
        x = (x - (x >> 23) * (1 << 24)) / 2.0**23
    else:
        return None
    return x.reshape(-1, channels)


def _pages_are_whole(raw: bytes) -> bool:
    """Every byte belongs to a page with the checksum that it names, computed bit by bit."""
    at = 0
    while at < len(raw):
        lengths = raw[at + 27 : at + 27 + raw[at + 26]]
        page = bytearray(raw[at : at + 27 + len(lengths) + sum(lengths)])
        named, page[22:26] = int.from_bytes(page[22:26], "little"), bytes(4)
        register = 0
        for byte in page:
            register = (register << 8 & 0xFFFFFFFF) ^ TABLE[register >> 24 ^ byte]
        if register != named:
            return False
        at += len(page)
    return True


def _table() -> list[int]:
    """Of the CRC with the polynomial 0x04C11DB7, most significant bit first."""
    rows = []
    for byte in range(256):
        register = byte << 24
        for _ in range(8):
            register = (register << 1 & 0xFFFFFFFF) ^ (0x04C11DB7 if register >> 31 else 0)
        rows.append(register)
    return rows


TABLE = _table()


def _is_of_its_md5(path: Path, raw: bytes) -> bool:
    """Whether the samples are those that a Flac file's first block vouches for."""
    at = raw.find(b"fLaC") + 8
    bits, md5 = (
        (int.from_bytes(raw[at + 10 : at + 18], "big") >> 36 & 31) + 1,
        raw[at + 18 : at + 34],
    )
    if md5 == bytes(16):
        return True  # it vouches for none
    samples = soundfile.read(path, dtype="int32", always_2d=True)[0] >> (32 - bits)
    width = (bits + 7) // 8
    content = samples.astype("<i4").tobytes()
    content = b"".join(content[i : i + width] for i in range(0, len(content), 4))
    return hashlib.md5(content, usedforsecurity=False).digest() == md5


# --- processes that may die ----------------------------------------------------------------------


def _limit() -> None:
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + LIMIT_BYTES, resource.RLIM_INFINITY))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)  # the decoder of MP3 has much to say


def _work(numbers: range, folder: Path, found) -> None:
    _limit()
    whole = sounds(np.random.default_rng(SEED))
    for number in numbers:
        suffix, change, raw = file_of(number, whole)
        path = folder / f"{number}.{suffix}"
        path.write_bytes(raw)
        outcome, why = judge(path, raw)
        path.unlink()
        found.send((number, suffix, change, outcome, why))
    found.send(peak_mb())


def _one(path: Path, found) -> None:
    _limit()
    peak_mb(afresh=True)
    long = path.stem == "two_hours"
    outcome, why = judge(path, b"" if long else path.read_bytes())
    if outcome == "read":
        LogMel().read(path)
    found.send((outcome, why, peak_mb()))


def watched(work: Callable, *given) -> tuple[list, str]:
    """What a process sent before it ended, and "crash" or "hang" where it did so early."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=work, args=(*given, theirs))
    process.start()
    theirs.close()
    sent, how = [], ""
    try:
        while ours.poll(LIMIT_SECONDS):
            sent.append(ours.recv())
        how = "hang"
    except EOFError:
        pass
    process.kill() if how else None
    process.join()
    return sent, how or ("crash" if process.exitcode else "")


def fuzz(files: int, folder: Path, *, each: int = 200) -> tuple[list[tuple], float]:
    """Number, format, change, outcome and reason of every file; the peak of memory in MB."""
    rows, peak, first = [], 0.0, 0
    while first < files:
        last = min(first + each, files)
        sent, how = watched(_work, range(first, last), folder)
        rows += [row for row in sent if isinstance(row, tuple)]
        peak = max([peak, *(row for row in sent if isinstance(row, float))])
        first += sum(isinstance(row, tuple) for row in sent)
        if how and first < last:  # the file that was not told of
            suffix, change, _ = file_of(first, sounds(np.random.default_rng(SEED)))
            rows.append((first, suffix, change, how, f"a process ended at file {first}"))
            first += 1
    return rows, peak


def counted(rows: list[tuple], column: int) -> dict[str, dict[str, int]]:
    """Outcomes by format (column 1) or by change (column 2)."""
    names = sorted({row[column] for row in rows})
    counts = Counter((row[column], row[3]) for row in rows)
    return {name: {o: counts[name, o] for o in OUTCOMES if counts[name, o]} for name in names}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=6000)
    parser.add_argument("--out", type=Path, default=RECORD)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        rows, peak = fuzz(options.files, Path(scratch))
        unusual = {}
        for name, path in write_unusual(Path(scratch)).items():
            started = time.monotonic()
            sent, how = watched(_one, path)
            outcome, why, mb = sent[0] if sent else (how, "", 0.0)
            unusual[name] = {"outcome": outcome, "peak_mb": round(mb)}
            unusual[name]["wall_seconds"] = round(time.monotonic() - started, 1)
            unusual[name] |= {"why": why} if why else {}
            print(f"{name:26}{outcome:10}{mb:8.0f} MB {why}", flush=True)
    bad = [row for row in rows if row[3] not in ("read", "refused")]
    for part in (counted(rows, 1), counted(rows, 2)):
        for name, outcomes in part.items():
            print(f"{name:16}", outcomes)
    print(*bad[:20], sep="\n")
    total = Counter(row[3] for row in rows)
    write_record(
        options.out,
        {
            "measured": "damaged sound files, each read or refused; see the script",
            "seed": SEED,
            "files": len(rows),
            "outcomes": {outcome: total[outcome] for outcome in OUTCOMES},
            "by_format": counted(rows, 1),
            "by_change": counted(rows, 2),
            "unusual": unusual,
            "peak_mb": round(peak),
            "not_read_rightly": [list(row) for row in bad],
            "libsndfile": soundfile.__libsndfile_version__,
            "soundfile": version("soundfile"),
        },
    )


if __name__ == "__main__":
    main()
