"""What long corpora cost: log-mels, training steps, and a store that does not fit into memory.

One hour of ten-second clips of made noise is listed as often as a corpus of so many hours needs.
Of every length: CPU seconds and bytes of its store, and the time of a training step of the
`contrastive` recipe on clips drawn at random. The longest store is then trained on in turns by a
process that holds it in memory and by one that reads patches from the disk, with a limit on its
memory where the system lets us set one, and with nothing of the file in memory when a block of
steps begins. From straight lines through the lengths follows what `--project` hours would take;
that is arithmetic, not a measurement. Prints tables, writes
book/results/benchmark_long_corpora.json.

    python benchmarks/long_corpora.py [--hours 1 2 5 10 20] [--steps 40] [--blocks 5] [--out FILE]
"""

import argparse
import contextlib
import math
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import torch
from timing import write_record
from tqdm.auto import tqdm

from acl_lib.config import recipe
from acl_lib.experiments import new_network
from acl_lib.features import LogMel, LogMelStore
from acl_lib.training import SimCLRStep, half_precision, make_optimizer, seed_everything, view_pairs

RECORD = Path(__file__).parents[1] / "book" / "results" / "benchmark_long_corpora.json"
CLIP_SECONDS, RATE = 10, 44_100
PROCESSES = multiprocessing.get_context("spawn")
GROUP_FILES = {  # limit, peak, times the limit was met, by version of the system's control groups
    1: ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.failcnt"),
    2: ("memory.max", "memory.peak", "memory.events"),
}


@dataclass(frozen=True)
class Sound:
    path: Path


@dataclass(frozen=True)
class Sounds:
    """What a store is built of."""

    name: str
    clips: list[Sound]


def write_sounds(folder: Path, count: int) -> list[Sound]:
    """Clips of coloured noise that swells and fades, each with a spectrum of its own."""
    sounds = []
    for n in tqdm(range(count), "made sounds", unit="clip"):
        rng, samples = np.random.default_rng(n), CLIP_SECONDS * RATE
        spectrum = np.fft.rfft(rng.standard_normal(samples))
        hertz = np.arange(len(spectrum)) / CLIP_SECONDS
        centre, slope = 10 ** rng.uniform(2.3, 3.7), rng.uniform(0.5, 1.5)
        wav = np.fft.irfft(spectrum / (1 + (hertz / centre) ** 2) ** slope, samples)
        level = np.interp(np.arange(samples), np.linspace(0, samples, 11), rng.uniform(0, 1, 11))
        wav *= level
        sounds.append(Sound(folder / f"{n:03d}.flac"))
        soundfile.write(sounds[-1].path, 0.5 * wav / np.abs(wav).max(), RATE)
    return sounds


def listed(sounds: list[Sound], hours: float) -> Sounds:
    count = max(round(hours * 3600 / CLIP_SECONDS), 4)  # mix-back needs two others
    times = math.ceil(count / len(sounds))
    return Sounds(f"{hours:g}h", (sounds * times)[:count])


def prepared(corpus: Sounds, mel: LogMel, cache: Path, workers: int | None) -> dict[str, float]:
    """Make the store of a corpus; what it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    store = LogMelStore.build(corpus, mel, cache, workers=workers)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    hours = len(corpus.clips) * CLIP_SECONDS / 3600
    return {
        "hours": hours,
        "clips": len(corpus.clips),
        "workers": workers or os.cpu_count(),
        "cpu_seconds": round(cpu, 2),
        "wall_seconds": round(wall, 2),
        "cpu_seconds_per_hour": round(cpu / hours, 3),
        "bytes": store.frames.nbytes + store.sums.nbytes,
        "bytes_per_hour": round((store.frames.nbytes + store.sums.nbytes) / hours),
        "frames_bytes": store.frames.nbytes,
    }


# --- training in processes of their own -----------------------------------------------------------


def read_bytes() -> int | None:
    """What this process has read from disks, where the system tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/io").read_text().splitlines():
            if line.startswith("read_bytes"):
                return int(line.split()[1])
    return None


def forget(path: Path) -> None:
    """Let the system keep nothing of a file in memory; nobody may have it mapped."""
    if hasattr(os, "posix_fadvise"):
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def trainer(pipe, options: argparse.Namespace, cache: Path, in_memory: bool, group) -> None:
    """Answer every corpus that comes through the pipe with the times of a block of steps on it."""
    try:
        if group:
            (group / "cgroup.procs").write_text(str(os.getpid()))
        block = block_of_steps(options, cache, in_memory)
        for corpus in iter(pipe.recv, None):
            pipe.send(block(corpus))
    except Exception as error:
        pipe.send(error)


def block_of_steps(options: argparse.Namespace, cache: Path, in_memory: bool):
    """A function from a corpus to the times of a block of steps; the network stays the same."""
    torch.set_num_threads(1)
    settings = wanted(options)
    mel = LogMel(**asdict(settings.mel))
    network = new_network(settings, num_classes=1)
    generator = seed_everything(0)
    optimizer, _ = make_optimizer(network.modules, settings.train, 10)
    for module in network.modules:
        module.train()
    held: dict[str, LogMelStore] = {}

    def opened(corpus: Sounds) -> LogMelStore:
        if corpus.name in held:
            return held[corpus.name]
        if not in_memory:
            forget(frames_file(corpus, cache))
        store = LogMelStore.build(corpus, mel, cache)
        if in_memory:
            held[corpus.name] = store = replace(store, frames=store.frames.clone())
        return store

    def block(corpus: Sounds) -> dict:
        store = opened(corpus)
        pool = torch.arange(len(store.starts))
        pairs = view_pairs(store, pool, views=settings.views, generator=generator)
        step = SimCLRStep(*network.modules, pairs, settings.loss, settings.train.precision)
        walls, cpu = [], time.process_time()
        faults, read = resource.getrusage(resource.RUSAGE_SELF).ru_majflt, read_bytes()
        for _ in range(options.steps):
            wall = time.perf_counter()
            clips = torch.randint(len(pool), (settings.train.batch,), generator=generator)
            optimizer.zero_grad(set_to_none=True)
            step(clips).backward()
            optimizer.step()
            walls.append(time.perf_counter() - wall)
        return {
            "wall_ms": 1e3 * statistics.mean(walls),
            "cpu_ms": 1e3 * (time.process_time() - cpu) / options.steps,
            "major_faults": resource.getrusage(resource.RUSAGE_SELF).ru_majflt - faults,
            "read_bytes": None if read is None else read_bytes() - read,
        }  # and with the store goes its mapping: `forget` works

    return block


def frames_file(corpus: Sounds, cache: Path) -> Path:
    (path,) = (cache / "logmel").glob(f"{corpus.name}-*/frames.f16")
    return path


class Trainer:
    """A `trainer` in a process of its own, which works only while it is asked."""

    def __init__(self, options, cache: Path, *, in_memory: bool, group: Path | None = None) -> None:
        self.pipe, far = PROCESSES.Pipe()
        arguments = far, options, cache, in_memory, group
        self.process = PROCESSES.Process(target=trainer, args=arguments)
        self.process.start()
        far.close()

    def block(self, corpus: Sounds) -> dict:
        self.pipe.send(corpus)
        answer = self.pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def __enter__(self):
        return self

    def __exit__(self, *failed) -> None:
        with contextlib.suppress(OSError):
            self.pipe.send(None)
        self.process.join()


def wanted(options: argparse.Namespace):
    return recipe("contrastive", profile="laptop", width=options.width, batch=options.batch)


def spread(blocks: list[dict], what: str) -> dict[str, float]:
    values = [block[what] for block in blocks]
    return {
        "median": round(statistics.median(values), 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
    }


def steps_of(corpora: list[Sounds], options, cache: Path) -> list[dict]:
    """Times of a step on every corpus, held in memory; the corpora take turns."""
    with Trainer(options, cache, in_memory=True) as process:
        for corpus in corpora:
            process.block(corpus)  # first calls allocate
        turns = [[process.block(corpus) for corpus in corpora] for _ in range(options.blocks)]
    return [
        {
            "corpus": corpus.name,
            "clips": len(corpus.clips),
            "n": len(blocks),
            "cpu_ms": spread(blocks, "cpu_ms"),
            "wall_ms": spread(blocks, "wall_ms"),
        }
        for corpus, blocks in zip(corpora, zip(*turns, strict=True), strict=True)
    ]


# --- a store larger than the memory ---------------------------------------------------------------


@contextlib.contextmanager
def memory_group():
    """A control group below our own, and its version; None where the system gives us none."""
    lines = [line.split(":", 2) for line in _text("/proc/self/cgroup").splitlines()]
    mounts = {1: "/sys/fs/cgroup/memory", 2: "/sys/fs/cgroup"}
    own = {1 if kinds else 2: path for _, kinds, path in lines if kinds in ("", "memory")}
    for version, path in sorted(own.items()):
        group = Path(mounts[version] + path) / f"long_corpora_{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / GROUP_FILES[version][0]).exists():
                yield group, version
                return
        finally:
            for _ in range(100):  # it empties a moment after its process
                with contextlib.suppress(OSError):
                    group.rmdir()
                    break
                time.sleep(0.05)
    yield None, None


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def streamed(corpus: Sounds, frames_bytes: int, options, cache: Path) -> dict:
    """The longest store in memory and from the disk, in turns."""
    with memory_group() as (group, version):
        if group is None:
            print("No memory limit can be set here: the streamed part runs without one.")
        with (
            Trainer(options, cache, in_memory=True) as memory,
            Trainer(options, cache, in_memory=False, group=group) as disk,
        ):
            memory.block(corpus), disk.block(corpus)
            limit = need = met = None
            if group:
                limit_file, peak_file, met_file = (group / name for name in GROUP_FILES[version])
                with contextlib.suppress(OSError):
                    peak_file.write_text("0")  # the first block also imported and compiled
                read = disk.block(corpus)["read_bytes"] or 0  # which the system kept, so far
                need = int(peak_file.read_text()) - read
                limit = need + options.spare * 1_000_000
                limit_file.write_text(str(limit))
            turns = [(memory.block(corpus), disk.block(corpus)) for _ in range(options.blocks)]
            if group:
                found = [line.split() for line in met_file.read_text().splitlines()]
                met = next(int(line[-1]) for line in found if line[:-1] in ([], ["max"]))
    held, read = zip(*turns, strict=True)
    ratios = [there["wall_ms"] / here["wall_ms"] for here, there in turns]
    return {
        "corpus": corpus.name,
        "frames_bytes": frames_bytes,
        "limited": limit is not None,
        "process_bytes": need,
        "limit_bytes": limit,
        "times_limit_was_met": met,
        "n": len(turns),
        "in_memory": {what: spread(held, what) for what in ("wall_ms", "cpu_ms")},
        "streamed": {what: spread(read, what) for what in ("wall_ms", "cpu_ms")},
        "major_faults": sum(block["major_faults"] for block in read),
        "bytes_read_per_step": None
        if read[0]["read_bytes"] is None
        else round(sum(block["read_bytes"] for block in read) / len(turns) / options.steps),
        "bytes_read_per_step_in_memory": None
        if held[0]["read_bytes"] is None
        else round(sum(block["read_bytes"] for block in held) / len(turns) / options.steps),
        "wall_ratio": {
            "median": round(statistics.median(ratios), 4),
            "min": round(min(ratios), 4),
            "max": round(max(ratios), 4),
            "n": len(ratios),
        },
    }


# --- what follows ---------------------------------------------------------------------------------


def line_through(x: list[float], y: list[float]) -> tuple[float, float]:
    """Slope and intercept of least squares; through the origin where there is one point."""
    if len(x) == 1:
        return y[0] / x[0], 0.0
    slope, intercept = np.polyfit(x, y, 1)
    return float(slope), float(intercept)


def projection(prepared: list[dict], steps: list[dict], *, hours: float, batch: int) -> dict:
    """Costs of a corpus of so many hours, on straight lines through those that were measured."""
    lengths = [row["hours"] for row in prepared]
    lines = {
        what: line_through(lengths, [row[what] for row in prepared])
        for what in ("cpu_seconds", "bytes", "clips")
    }
    costs = {what: slope * hours + intercept for what, (slope, intercept) in lines.items()}
    clips = round(costs["clips"])
    per_step = statistics.median(row["cpu_ms"]["median"] for row in steps)
    return {
        "measured": False,
        "lines": {  # through the lengths that were measured
            what: {"per_hour": round(slope, 3), "at_zero": round(intercept, 3)}
            for what, (slope, intercept) in lines.items()
        },
        "hours": hours,
        "clips": clips,
        "prepare_cpu_hours": round(costs["cpu_seconds"] / 3600, 2),
        "store_gigabytes": round(costs["bytes"] / 1e9, 1),
        "steps_per_epoch": clips // batch,
        "epoch_cpu_hours": round(clips // batch * per_step / 3.6e6, 2),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, nargs="+", default=[1, 2, 5, 10, 20])
    parser.add_argument("--steps", type=int, default=40, help="in a block")
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--batch", type=int, default=32, help="clips in a step")
    parser.add_argument("--spare", type=int, default=60, help="MB of memory beside the process")
    parser.add_argument("--project", type=float, default=5000, help="hours; AudioSet has so many")
    parser.add_argument("--folder", type=Path, help="on a disk with room for all the stores")
    parser.add_argument("--out", type=Path, default=RECORD)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    settings = wanted(options)
    mel = LogMel(**asdict(settings.mel))
    with tempfile.TemporaryDirectory(dir=options.folder) as root:
        root = Path(root)
        unique = min(max(options.hours), 1) * 3600 / CLIP_SECONDS
        sounds = write_sounds(root, max(round(unique), 4))
        corpora = [listed(sounds, hours) for hours in options.hours]
        first = corpora[0]
        made = []
        print(f"{'hours':>7} {'clips':>7} {'CPU s per hour':>15} {'MB per hour':>12}")
        for corpus in corpora:
            row = prepared(corpus, mel, root / "cache", None)
            made.append(row)
            print(
                f"{row['hours']:7.2f} {row['clips']:7d} {row['cpu_seconds_per_hour']:15.2f} "
                f"{row['bytes_per_hour'] / 1e6:12.2f}",
                flush=True,
            )
        scaling = [
            prepared(first, mel, root / f"{workers}-{turn}", workers)
            for turn in range(2)
            for workers in sorted({1, os.cpu_count() or 1})
        ]
        trained = steps_of(corpora, options, root / "cache")
        print(f"{'corpus':>7} {'CPU ms a step':>14} {'wall ms a step':>15}")
        for row in trained:
            print(
                f"{row['corpus']:>7} {row['cpu_ms']['median']:14.1f} "
                f"{row['wall_ms']['median']:15.1f}",
                flush=True,
            )
        longest = max(range(len(made)), key=lambda n: made[n]["hours"])
        stream = streamed(corpora[longest], made[longest]["frames_bytes"], options, root / "cache")
    ratio = stream["wall_ratio"]
    print(
        f"{stream['corpus']} streamed: {ratio['median']:.3f} times as long as in memory "
        f"({ratio['min']:.3f} to {ratio['max']:.3f}, n = {ratio['n']}), "
        f"{'limited' if stream['limited'] else 'no limit'}"
    )
    ahead = projection(made, trained, hours=options.project, batch=options.batch)
    print(
        f"{options.project:g} hours, projected: {ahead['prepare_cpu_hours']:.1f} CPU hours of "
        f"preparation, {ahead['store_gigabytes']:.0f} GB, {ahead['epoch_cpu_hours']:.1f} CPU hours "
        "an epoch"
    )
    measured = (
        f"{len(sounds)} made FLACs of {CLIP_SECONDS} s at {RATE} Hz, listed as often as needed; "
        f"blocks of {options.steps} steps of {options.batch} random clips, one thread, contenders "
        "in turns; before a streamed block nothing of the store is in memory"
    )
    write_record(
        options.out,
        {
            "measured": measured,
            "unique_clips": len(sounds),
            "width": options.width,
            "bfloat16": half_precision(settings.train.precision, "cpu"),
            "prepare": made,
            "prepare_by_workers": scaling,
            "steps": trained,
            "streaming": stream,
            "projection": ahead,
        },
    )


if __name__ == "__main__":
    main()
