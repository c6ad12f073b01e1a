"""What the published pretraining protocol costs on one GPU: milliseconds of a step, hours of a run.

The recipes `paper_code` and `paper_text` at their width and batch, in bfloat16, on a log-mel store
as large as FSDnoisy18k's training split. No sound is needed: the frames are noise, made on the
device, and the clips' lengths follow a law with that corpus's mean. Every way of running the same
step (eager, compiled, compiled with CUDA graphs, ...) has its turn in every round. What is timed is
the library's step with its optimiser, stage by stage; the minutes of the whole protocol are
projected from it, and so is the probe from a part. Prints tables and, on a GPU, writes
book/results/benchmark_gpu_protocol.json; on a CPU it is a rehearsal, and writes where --out says.

    python benchmarks/gpu_protocol.py [--steps 50] [--rounds 3] [--variants eager compiled ...]
    python benchmarks/gpu_protocol.py --clips 40 --steps 2 --width 8 --batch 8 --device cpu
"""

import argparse
import gc
import itertools
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from timing import ratio_with_spread, write_record
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from acl_lib.config import MelConfig, Recipe, recipe
from acl_lib.datasets.fsdnoisy18k import PUBLISHED
from acl_lib.experiments import new_network
from acl_lib.features import LogMelStore
from acl_lib.probing import embed, fit_logistic, knn_score
from acl_lib.training import (
    SimCLRStep,
    make_optimizer,
    seed_everything,
    standardisation,
    train,
    view_pairs,
)
from acl_lib.views import all_patches

RECORD = Path(__file__).parents[1] / "book" / "results" / "benchmark_gpu_protocol.json"
RECIPES = ("paper_code", "paper_text")
STAGES = ("views", "forward", "loss", "backward", "optimiser")
CLASSES = 20
MEAN_SECONDS = 42.5 * 3600 / 18_532  # a clip of FSDnoisy18k: Fonseca et al. 2019
SHORTEST, LONGEST = 0.3, 30.0  # seconds, the same source
SPREAD = 1.0  # of the logarithm of the seconds; ours, the source gives no more than the above
CLIPS_AT_ONCE = 512  # whose sums are made in float64
PROBED = 2_000  # clips of which the probe is measured


@dataclass(frozen=True)
class Variant:
    """One way to run the same step."""

    compiled: str = ""  # mode of torch.compile, or none
    search: bool = False  # cuDNN tries its algorithms for every shape and keeps the fastest


VARIANTS = {
    "eager": Variant(),
    "eager, cuDNN searching": Variant(search=True),
    "compiled": Variant(compiled="default"),
    "compiled, CUDA graphs": Variant(compiled="reduce-overhead"),
}


# --- what is run


def clip_seconds(clips: int, generator: torch.Generator) -> Float[Tensor, " N"]:
    """Log-normal lengths within [0.3, 30] s whose mean is FSDnoisy18k's 42.5 h / 18,532."""
    normal = torch.randn(clips, generator=generator, dtype=torch.float64)

    def lengths(centre: float) -> Tensor:
        return (centre + SPREAD * normal).exp().clamp(SHORTEST, LONGEST)

    low, high = math.log(SHORTEST) - 4 * SPREAD, math.log(LONGEST) + 4 * SPREAD
    for _ in range(60):  # halves until the mean is right: it rises with the centre
        centre = (low + high) / 2
        low, high = (centre, high) if lengths(centre).mean() < MEAN_SECONDS else (low, centre)
    return lengths(low)


def noise_store(clips: int, mel: MelConfig, device: torch.device) -> LogMelStore:
    """A store of noise with the mean and spread of log-mels, seeded, made on the device."""
    seconds = clip_seconds(clips, torch.Generator().manual_seed(0)).clamp(min=mel.min_seconds)
    lengths = 1 + (seconds * mel.sample_rate).long() // mel.hop_length
    generator = torch.Generator(device).manual_seed(0)
    frames = torch.empty(int(lengths.sum()), mel.n_mels, dtype=torch.float16, device=device)
    frames.normal_(-1.4, 2.2, generator=generator)
    sums, at = [], 0
    for some in lengths.split(CLIPS_AT_ONCE):
        values = frames[at : at + int(some.sum())].double()
        clip = torch.arange(len(some)).repeat_interleave(some).to(device)
        empty = values.new_zeros(len(some), mel.n_mels)
        both = [empty.index_add(0, clip, x) for x in (values, values.square())]
        sums.append(torch.stack(both, dim=1))
        at += len(values)
    starts = lengths.cumsum(0) - lengths
    return LogMelStore(frames, starts.to(device), lengths.to(device), torch.cat(sums))


def published_clips(wanted: Recipe) -> int:
    """Clips that a recipe trains on in the whole corpus."""
    return PUBLISHED["noisy" if wanted.pretrain_on == "noisy" else "all"]


def protocol(wanted: Recipe) -> tuple[int, int]:
    """Steps of a recipe on the whole corpus, and patches that pass through the network in them."""
    clips, batch, epochs = published_clips(wanted), wanted.train.batch, wanted.train.epochs
    if wanted.train.drop_last:
        return epochs * (clips // batch), epochs * 2 * (clips - clips % batch)
    return epochs * math.ceil(clips / batch), epochs * 2 * clips


def flops_per_patch(wanted: Recipe) -> float:
    """Floating-point operations of encoder and head, forward and backward, counted on two patches.

    A multiplication and an addition are two; what is not a convolution or a matrix product is not
    counted.
    """
    network = new_network(wanted, CLASSES)
    x = torch.zeros(2, 1, wanted.mel.n_mels, wanted.views.patch_frames)
    with FlopCounterMode(display=False) as counter:
        network.head(network.encoder(x)).sum().backward()
    return counter.get_total_flops() / len(x)


# --- how it is timed


class Stopwatch:
    """Milliseconds between marks: by events in a GPU's queue, which is not stopped for them."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.marks = device, []

    def __call__(self, stage: str) -> None:
        if self.device.type == "cuda":
            now = torch.cuda.Event(enable_timing=True)
            now.record()
        else:
            now = time.perf_counter()
        self.marks.append((stage, now))

    def read(self) -> list[tuple[str, float]]:
        """What ended at each mark but the first, and the milliseconds since the mark before."""
        _wait(self.device)
        marks, self.marks = self.marks, []
        return [
            (
                stage,
                before.elapsed_time(now) if self.device.type == "cuda" else 1e3 * (now - before),
            )
            for (_, before), (stage, now) in itertools.pairwise(marks)
        ]


@dataclass(kw_only=True)
class TimedStep(SimCLRStep):
    """The library's step, which tells when its views are there and when h and z are."""

    mark: Callable[[str], None]

    def __post_init__(self) -> None:
        make = self.pairs

        def marked(clips: Tensor) -> Tensor:
            x = make(clips)
            self.mark("views")
            return x

        self.pairs = marked

    def views(self, clips: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        found = super().views(clips)
        self.mark("forward")
        return found


class Contender:
    """A network of its own, its optimiser, and the step that is timed."""

    def __init__(self, wanted: Recipe, store: LogMelStore, pool: Tensor, variant: Variant) -> None:
        device = store.frames.device
        self.variant, self.pool, self.device = variant, pool, device
        self.network = new_network(wanted, CLASSES, device)
        self.modules = [module.train() for module in self.network.modules]
        self.generator = seed_everything(wanted.seed, device)
        self.mark = Stopwatch(device)
        encoder, head = self.modules
        if variant.compiled:
            # two shapes in an epoch, the full and the last batch, each made once
            encoder, head = (
                torch.compile(module, mode=variant.compiled, dynamic=False)
                for module in self.modules
            )
        self.step = TimedStep(
            encoder,
            head,
            view_pairs(store, pool, views=wanted.views, generator=self.generator),
            wanted.loss,
            wanted.train.precision,
            wanted.train.two_passes,
            mark=self.mark,
        )
        self.batch = min(wanted.train.batch, len(pool))
        steps, _ = protocol(wanted)
        self.optimizer, self.scheduler = make_optimizer(self.modules, wanted.train, steps)

    def batches(self, steps: int) -> list[Tensor]:
        """Clips of so many full batches, drawn epoch by epoch."""
        found = []
        while len(found) < steps:
            order = torch.randperm(len(self.pool), generator=self.generator, device=self.device)
            whole = len(order) // self.batch * self.batch
            found += self.pool[order[:whole]].split(self.batch)
        return found[:steps]

    def turn(self, steps: int) -> list[dict[str, float]]:
        """Milliseconds of the stages of each step, as `training.train` runs them."""
        torch.backends.cudnn.benchmark = self.variant.search
        trace = torch.zeros(steps, 2, device=self.device)
        weights = [p for module in self.modules for p in module.parameters()]
        batches = self.batches(steps)
        self.optimizer.zero_grad(set_to_none=True)
        _wait(self.device)
        self.mark("start")
        for i, clips in enumerate(batches):
            if self.variant.compiled:
                torch.compiler.cudagraph_mark_step_begin()
            loss = self.step(clips)
            self.mark("loss")
            loss.backward()
            self.mark("backward")
            norm = nn.utils.get_total_norm([p.grad for p in weights])
            trace[i, 0], trace[i, 1] = loss.detach(), norm
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.mark("optimiser")
        found = self.mark.read()
        torch.backends.cudnn.benchmark = False
        if not trace.isfinite().all():
            raise FloatingPointError("the loss or its gradient is not finite: nothing to time here")
        parts = len(STAGES)
        return [dict(found[at : at + parts]) for at in range(0, len(found), parts)]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _forget() -> None:
    """Leave nothing of one recipe in the memory that the next one is said to take."""
    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def seconds_of(call: Callable[[], object], device: torch.device) -> tuple[float, object]:
    """Seconds of a call until the device has finished, and what it returned."""
    _wait(device)
    started = time.perf_counter()
    result = call()
    _wait(device)
    return time.perf_counter() - started, result


def matmul_tflops(device: torch.device, n: int) -> float:
    """What a product of two n x n matrices in bfloat16 reaches: median of 50, 10^12 a second."""
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    mark = Stopwatch(device)
    for _ in range(60):
        a @ b
        mark("product")
    return 2 * n**3 / statistics.median(ms for _, ms in mark.read()[10:]) / 1e9


def synchronisations(contender: Contender, steps: int = 2) -> list[str] | None:
    """Where in a step the CPU waits for the GPU; None where there is no GPU."""
    if contender.device.type != "cuda":
        return None
    batches = contender.batches(steps)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        for clips in batches:
            contender.step(clips).backward()
            contender.optimizer.step()
            contender.optimizer.zero_grad(set_to_none=True)
        torch.cuda.set_sync_debug_mode("default")
    contender.mark.read()
    waits = [w for w in told if "called a synchronizing" in str(w.message)]
    return sorted({f"{Path(w.filename).name}:{w.lineno}" for w in waits})


# --- what comes out


def summary(by_round: list[list[dict[str, float]]], flops: float) -> dict[str, object]:
    """Milliseconds, their stages and shares, from the stages of each step of each round.

    Args:
        by_round: milliseconds of the stages, step by step, round by round.
        flops: of a step.
    """
    steps = [step for turn in by_round for step in turn]
    whole = torch.tensor([sum(step.values()) for step in steps], dtype=torch.float64)
    tenth, median, ninetieth = whole.quantile(whole.new_tensor([0.1, 0.5, 0.9])).tolist()
    stages = {stage: statistics.fmean(step[stage] for step in steps) for stage in STAGES}
    shares = {stage: ms / whole.mean().item() for stage, ms in stages.items()}
    return {
        "ms": {"median": median, "p10": tenth, "p90": ninetieth, "n": len(steps)},
        "tflops": flops / median / 1e9,
        "stages_mean_ms": stages,
        "stages_share": shares,
        "share_outside_network": 1 - shares["forward"] - shares["backward"],
    }


def measure_steps(
    wanted: Recipe, store: LogMelStore, pool: Tensor, options: argparse.Namespace
) -> tuple[list[dict], dict, Contender]:
    """The variants in turns; what the eager one needs besides; and the eager one."""
    made, failed, besides = {}, {}, {}
    flops = flops_per_patch(wanted) * 2 * min(wanted.train.batch, len(pool))
    for name in options.variants:
        try:
            contender = Contender(wanted, store, pool, VARIANTS[name])
            contender.turn(options.warm_up)
        except Exception as error:  # a compiler may be missing; the others are worth measuring
            if name == "eager":
                raise
            print(f"{name}: {error}", file=sys.stderr)
            failed[name] = type(error).__name__  # its text would name folders of this machine
            continue
        made[name] = contender
        if name == "eager":
            if contender.device.type == "cuda":
                besides["peak_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
            besides["synchronisations"] = synchronisations(contender)
            besides["train_ms_per_step"] = train_ms(wanted, contender, options.steps)
    turns = {name: [] for name in made}
    for _ in range(options.rounds):
        for name, contender in made.items():
            turns[name].append(contender.turn(options.steps))
    rows = []
    steps, _ = protocol(wanted)

    def medians(name: str) -> list[float]:
        return [statistics.median(sum(s.values()) for s in turn) for turn in turns[name]]

    for name in made:
        row = {"variant": name, **summary(turns[name], flops)}
        row["ratio_to_eager"] = ratio_with_spread(medians(name), medians("eager"))
        ms = row["ms"]
        row["projected_training_minutes"] = {
            key: steps * ms[key] / 60_000 for key in ("median", "p10", "p90")
        }
        rows.append(row)
    rows += [{"variant": name, "failed": error} for name, error in failed.items()]
    return rows, besides, made["eager"]


def train_ms(wanted: Recipe, contender: Contender, steps: int) -> float:
    """Milliseconds of a step in `training.train`: one epoch with its end, after one to warm up."""
    pool = torch.cat(contender.batches(steps))
    settings = replace(wanted.train, epochs=1)

    def epoch() -> None:
        train(
            contender.step,
            pool,
            contender.modules,
            config=settings,
            generator=contender.generator,
        )
        contender.mark.marks.clear()

    epoch()
    seconds, _ = seconds_of(epoch, contender.device)
    return 1e3 * seconds / steps


def measure_probe(
    wanted: Recipe, store: LogMelStore, contender: Contender, selecting: Tensor
) -> dict[str, object]:
    """What follows the training: all patches embedded, one fit, and the selection's scores."""
    device, generator = contender.device, torch.Generator().manual_seed(0)
    mean, std = standardisation(store, contender.pool)
    every = torch.arange(len(store.starts), device=device)
    y = torch.randint(CLASSES, (len(every),), generator=generator).to(device)
    part = every[torch.randperm(len(every), generator=generator)[:PROBED].to(device)]
    hop, frames = wanted.probe.hop, wanted.views.patch_frames

    def embedded(model: nn.Module, clips: Tensor) -> tuple[Tensor, Tensor]:
        return embed(
            model,
            store,
            clips,
            mean=mean,
            std=std,
            patch_frames=frames,
            hop=hop,
            precision=wanted.train.precision,
        )

    def fit() -> None:
        fit_logistic(h, y[clip], num_classes=CLASSES, penalties=wanted.probe.penalties[:1])

    encoder, head = contender.modules
    embedded(encoder, part[:32])  # the first call of a shape searches and allocates
    embedding, (h, clip) = seconds_of(lambda: embedded(encoder, part), device)
    fitting, _ = seconds_of(fit, device)
    found, _ = all_patches(store.starts, store.lengths, every, patch_frames=frames, hop=hop)
    in_corpus = len(found) * PUBLISHED["all"] / len(every)
    larger = in_corpus / len(h)
    measured = {
        "embedding_seconds": embedding,
        "fit_seconds": fitting,
        "patches_measured": len(h),
        "patches_of_the_training_split": round(in_corpus),
        "projected_embedding_minutes": embedding * larger / 60,
        "projected_fit_minutes": fitting * larger / 60,
        "projected_selection_minutes": 0.0,
    }
    if wanted.select.select_by == "knn":

        def score() -> float:
            z, of = embedded(nn.Sequential(encoder, head), selecting)
            neighbours = wanted.select.select_neighbours
            return knn_score(z, of, y, neighbours=neighbours, num_classes=CLASSES)

        score()
        scoring, _ = seconds_of(score, device)
        scores = wanted.train.epochs / wanted.select.select_every
        measured |= {
            "selection_score_seconds": scoring,
            "clips_that_select": len(selecting),
            "projected_selection_minutes": scoring * scores / 60,
        }
    return measured


def measure(name: str, store: LogMelStore, options: argparse.Namespace) -> dict[str, object]:
    """Everything about one recipe."""
    wanted = recipe(name, precision=options.precision)
    if options.width or options.batch:
        sizes = {"width": options.width, "batch": options.batch}
        wanted = recipe(name, precision=options.precision, **{k: v for k, v in sizes.items() if v})
    _forget()
    clips = len(store.starts)
    trained = round(clips * published_clips(wanted) / PUBLISHED["all"])
    every = torch.arange(clips, device=store.frames.device)
    pool, selecting = every[:trained], every[trained:]
    rows, besides, eager = measure_steps(wanted, store, pool, options)
    after = measure_probe(wanted, store, eager, selecting)
    rest = sum(after[f"projected_{part}_minutes"] for part in ("embedding", "fit", "selection"))
    timed = [row for row in rows if "failed" not in row]
    fastest = min(timed, key=lambda row: row["ms"]["median"])
    steps, patches = protocol(wanted)
    flops = flops_per_patch(wanted)
    return {
        "recipe": name,
        "width": wanted.train.width,
        "batch": wanted.train.batch,
        "epochs": wanted.train.epochs,
        "clips": published_clips(wanted),
        "clips_in_the_store": clips,
        "steps": steps,
        "gflop_per_patch": flops / 1e9,
        "pflop": patches * flops / 1e15,
        "variants": rows,
        "fastest": fastest["variant"],
        **besides,
        "probe": after,
        "projected_whole_minutes": {
            row["variant"]: row["projected_training_minutes"]["median"] + rest for row in timed
        },
    }


def show(found: dict[str, object], peak: float) -> None:
    print(
        f"\n{found['recipe']}: {found['clips']} clips, batch {found['batch']}, {found['steps']} "
        f"steps, {found['pflop']:.1f} PFLOP ({found['gflop_per_patch']:.3f} GFLOP a patch)"
    )
    print(f"{'':24}{'ms':>8}{'10-90 %':>17}{'TFLOP/s':>9}{'of peak':>9}{'outside':>9}", end="")
    print("".join(f"{stage:>11}" for stage in STAGES) + f"{'projected min':>15}")
    for row in found["variants"]:
        if "failed" in row:
            print(f"{row['variant']:24}{row['failed']}")
            continue
        ms = row["ms"]
        print(
            f"{row['variant']:24}{ms['median']:8.2f}{ms['p10']:9.2f}{ms['p90']:8.2f}"
            f"{row['tflops']:9.2f}{row['tflops'] / peak:9.1%}{row['share_outside_network']:9.1%}"
            + "".join(f"{row['stages_share'][stage]:11.1%}" for stage in STAGES)
            + f"{row['projected_training_minutes']['median']:15.2f}"
        )
    whole = found["projected_whole_minutes"]
    print(f"train(): {found['train_ms_per_step']:.2f} ms a step", end="; ")
    print(f"fastest: {found['fastest']}; projected with selection and probe:", end=" ")
    print(", ".join(f"{name} {minutes:.2f} min" for name, minutes in whole.items()))
    if found["synchronisations"]:
        print(f"the GPU is waited for at {', '.join(found['synchronisations'])}")


def rounded(found, digits: int = 5):
    """The same with five digits of every number that is not whole."""
    if isinstance(found, dict):
        return {key: rounded(value, digits) for key, value in found.items()}
    if isinstance(found, list):
        return [rounded(value, digits) for value in found]
    return float(f"{found:.{digits}g}") if isinstance(found, float) else found


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--clips", type=int, default=PUBLISHED["all"], help="in the store")
    parser.add_argument("--steps", type=int, default=50, help="of a variant in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=10, help="steps of a variant, not counted")
    parser.add_argument("--width", type=int, help="of the encoder; the recipe's unless given")
    parser.add_argument("--batch", type=int, help="clips; the recipe's unless given")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS)
    parser.add_argument("--out", type=Path, help="where the record goes; on a CPU nowhere else")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    on_gpu = device.type == "cuda"
    chosen = options.variants or (VARIANTS if on_gpu else ["eager"])
    options.variants = list(dict.fromkeys(["eager", *chosen]))  # what the others are compared with
    out = options.out or (RECORD if on_gpu else None)
    if not on_gpu:
        torch.set_num_threads(1)
    name = torch.cuda.get_device_name(device) if on_gpu else "CPU, a rehearsal"
    size = 8192 if on_gpu else 256
    peak = matmul_tflops(device, size)
    seconds, store = seconds_of(
        lambda: noise_store(options.clips, recipe("paper_code").mel, device), device
    )
    hours = store.lengths.sum().item() * MelConfig.hop_length / MelConfig.sample_rate / 3600
    print(f"{name}: {peak:.1f} TFLOP/s in a product of {size} x {size} matrices, bfloat16")
    print(f"a store of {options.clips} clips, {hours:.2f} h, made in {seconds:.1f} s")
    found = []
    for wanted in options.recipes:
        result = measure(wanted, store, options)
        for row in result["variants"]:
            if "failed" not in row:
                row["share_of_matmul_peak"] = row["tflops"] / peak
        show(result, peak)
        found.append(result)
    if out is None:
        print("\na rehearsal: no record written; --out FILE writes one")
        return
    measured = (
        f"{options.rounds} rounds of {options.steps} steps of each variant in turns, "
        f"{options.precision}, a store of noise; minutes named projected are the number of steps, "
        "patches or scores of the whole protocol times what was measured; the trained probe of "
        "paper_code, checkpoints and the making of log-mels are left out"
    )
    record = {
        "measured": measured,
        "device": name,
        "cuda": torch.version.cuda if on_gpu else None,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
        "lengths_of_clips": (
            f"log-normal, deviation {SPREAD} of the logarithm, within {SHORTEST} to {LONGEST} s, "
            f"mean {MEAN_SECONDS:.3f} s"
        ),
        "matmul_tflops": peak,
        "matmul_size": size,
        "store_hours": hours,
        "store_gb": store.frames.nbytes / 1e9,
        "recipes": found,
    }
    write_record(out, rounded(record))
    print(f"\nwritten to {out}")


if __name__ == "__main__":
    main()
