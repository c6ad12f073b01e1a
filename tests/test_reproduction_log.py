"""Numbers in book/reproduction_log.md are computed again; its settings are those of the recipes."""

import ast
import functools
import importlib
import json
import math
import re
import statistics
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import soundfile
import torch
import torch.nn.functional as F

from acl_lib import losses
from acl_lib.config import PROFILES, RECIPES, RESAMPLERS, recipe
from acl_lib.datasets.fsdnoisy18k import PUBLISHED
from acl_lib.explorers.sweeps import gather
from acl_lib.features import LogMel
from acl_lib.models import BaselineCNN, ProjectionHead, ResNet18
from acl_lib.publish import ROOT
from acl_lib.published import TABLES, TEST_CLIPS, TEST_PATCHES
from acl_lib.records import compare, method_name, over_seeds, read_all
from acl_lib.statistics import best_of_noise, wilson_interval

PAGE = (ROOT / "book" / "reproduction_log.md").read_text(encoding="utf-8")
ROWS = {  # what a point is about -> paper, code, here, measured
    row[0].replace("**", ""): row[1:]
    for row in (re.split(r" +\| +", line.strip("| ")) for line in PAGE.splitlines())
    if row[0].startswith("**")
}


def numbers(cell):
    """Numbers as printed; not those in links, in code, or in names such as ESC-10 and log10."""
    cell = re.sub(r"\]\([^)]*\)|`[^`]*`|\b[A-Za-z]+-?\d+", "", cell)
    return re.findall(r"[+-]?\d(?:[\d,]*\d)?(?:\.\d+)?(?:e[+-]\d+)?", cell)


def below(value, bound):
    assert value < float(bound)
    return bound


# --- records --------------------------------------------------------------------------------------


@functools.cache
def records(folder="esc10"):
    return read_all([ROOT / "book" / "results" / folder])


@functools.cache
def sweeps():
    return gather(ROOT / "book" / "results")


def unlabelled(pretrain_on="all"):
    return [
        r for r in records() if (r.recipe.method, r.recipe.pretrain_on) == ("simclr", pretrain_on)
    ]


@functools.cache
def differences():
    return {(pair["a"], pair["b"]): pair for pair in compare(unlabelled())}


def with_ends(pair):
    low, high = pair["interval"]
    return [f"{100 * pair['difference']:+.2f}", f"{100 * low:+.1f}", f"{100 * high:+.1f}"]


def weights(batch, reduction):
    """Of the means over positive and over negative pairs, from the loss itself."""
    views = torch.eye(2 * batch).chunk(2)
    narrow = losses.angular_margin(*views, margin=0.5, reduction=reduction)
    wide = losses.angular_margin(*views, margin=2.0, reduction=reduction)
    positive, negative = narrow / (math.pi / 2) ** 2, (wide - narrow) / (2 - math.pi / 2) ** 2
    return [f"{positive:.2f}", f"{negative:.2f}"]


def summaries():
    rows, plain = over_seeds(unlabelled()), "NT-Xent"
    names = {"NT-Xent": plain} | {
        f"ACL, `{how}`": f"ACL, alpha 0.3, {how}" for how in ("paper_code", "paper_scaled")
    }
    for title, method in names.items():
        row = rows[f"{method}; pretrained on all"]
        assert len(row["per_seed"]) == 3
        how = method.split()[-1]
        weighed = weights(32, how) if method != plain else []
        against = with_ends(differences()[plain, method]) if method != plain else []
        yield title, weighed, row, against
    for title in ("untrained encoder", "log-mel statistics"):
        yield title, [], rows[title], []


def test_the_table_of_two_readings_is_that_of_the_records():
    for title, weighed, row, against in summaries():
        low, high = (f"{100 * end:.1f}" for end in row["interval"])
        wanted = [*weighed, f"{100 * row['mean']:.2f}", low, high, *against]
        (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {title} |")]
        assert numbers(line) == wanted, f"{title} should have {wanted}"


def test_the_text_below_that_table_is_that_of_the_records():
    paragraph = next(line for line in PAGE.splitlines() if line.startswith("Intervals hold 95 %"))
    two = differences()["ACL, alpha 0.3, paper_code", "ACL, alpha 0.3, paper_scaled"]
    strict = {method_name(r.recipe): r.results["trained"]["linear"] for r in unlabelled("train")}
    order = ["NT-Xent", *(f"ACL, alpha 0.3, {how}" for how in ("paper_code", "paper_scaled"))]
    assert len(unlabelled("train")) == 3
    wanted = ["95", *with_ends(two), *(f"{100 * strict[m]['accuracy']:.2f}" for m in order)]
    assert numbers(paragraph)[: len(wanted)] == wanted


# --- the last column ------------------------------------------------------------------------------


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def resampling():
    with tempfile.TemporaryDirectory() as folder:
        soundfile.write(Path(folder, "a.wav"), 0.1 * noise(44_100).numpy(), 44_100)
        names = ("kaiser_best", "soxr_hq")
        theirs, ours = (LogMel(resampler=r).read(Path(folder, "a.wav")) for r in names)
    return [below((theirs - ours)[:90].abs().max(), "0.02"), "90"]


def constant_on_the_waveform():
    mel, sounds = LogMel(), (torch.zeros(22_050), 0.01 * noise(22_050))
    return [below(max((mel(w + 1.1e-8) - mel(w)).abs().max() for w in sounds), "0.00001")]


@torch.no_grad()
def standard_deviation():
    torch.manual_seed(0)
    encoder, x = ResNet18(16).train(), noise(16, 1, 96, 101)
    theirs, ours = encoder(36_600 * x), encoder(x)  # the root of the number of their values
    return [below(100 * (theirs - ours).norm() / ours.norm(), "0.01")]


@torch.no_grad()
def scale_of_the_inputs():
    torch.manual_seed(0)
    encoder, x = ResNet18(16).train(), noise(64, 1, 96, 101)
    for _ in range(50):
        encoder(x)  # running statistics
    means = []
    for scale in (1.0, 5.3):
        u = F.normalize(encoder.eval()(x / scale))
        means.append(((u @ u.T).sum() - len(u)) / (len(u) * (len(u) - 1)))
    return ["5.3", *(f"{mean:.2f}" for mean in means)]


def overlap():
    starts = 502 - 101 + 1
    return [f"{100 * (1 - (starts - 101) * (starts - 100) / starts**2):.0f}"]


@torch.no_grad()
def inner_product():
    torch.manual_seed(0)
    h = ResNet18(16)(noise(16, 1, 96, 101))
    assert (h @ h.T).min() > 1
    return ["1"]


def guard_of_arccos():
    cosine = torch.ones((), requires_grad=True)
    torch.acos(cosine.clamp(max=1 - 1e-10)).square().backward()
    assert cosine.grad.isnan()
    h = torch.rand(8, 16, requires_grad=True)
    losses.pair_angles(h, h.detach().clone()).square().sum().backward()
    return [f"{h.grad.abs().max():.0f}"]


def supervised_sum():
    some = [r for r in records() if r.recipe.method == "supervised" and r.recipe.seed == 0]
    (pair,) = compare(some, reader="classifier")
    return ["64", f"{64 * 63 / 50:.2f}", *with_ends(pair)]


def precision():
    twins = []
    for half in sorted(records("esc10_finetuned"), key=lambda r: -r.recipe.loss.alpha):
        (full,) = [
            r
            for r in unlabelled("train")
            if replace(r.recipe, probe=half.recipe.probe) == half.recipe
        ]
        assert half.cost["bfloat16"] and not full.cost["bfloat16"]
        twins += [half.results["trained"]["linear"], full.results["trained"]["linear"]]
    return [f"{100 * got['accuracy']:.2f}" for got in twins]


def seeds():
    rows = over_seeds(unlabelled())
    methods = ["NT-Xent", *(f"ACL, alpha 0.3, {how}" for how in ("paper_code", "paper_scaled"))]
    values = [rows[f"{method}; pretrained on all"]["per_seed"] for method in methods]
    return [f"{100 * statistics.stdev(v):.2f}" for v in values]


def parameters(module):
    return f"{sum(p.numel() for p in module.parameters()):,}"


def size():
    plans = {(r.recipe.train.width, r.recipe.train.batch, r.recipe.train.epochs) for r in records()}
    (plan,) = plans
    return [str(n) for n in plan]


def accuracy():
    asked = [r.results["trained"]["linear"] for r in records()]
    apart = 100 * max(abs(a["accuracy"] - a["patch_weighted"]) for a in asked)
    sweep = TABLES["alpha_sweep"]
    micro, macro = ([sweep.column(c)[k] for k in (-1, 3)] for c in ("linear_micro", "linear_macro"))
    patches = [f"{value / 100 * TEST_PATCHES:.0f}" for value in micro]
    shares = [f"{value:.3f}" for value in micro], [f"{value:.3f}" for value in macro]
    return [f"{apart:.2f}", *shares[0], *patches, str(TEST_PATCHES), *shares[1]]


def intervals():
    shares = [row[1] for row in TABLES["systems"].rows[2:]]
    both = [wilson_interval(round(s / 100 * TEST_CLIPS), TEST_CLIPS) for s in shares]
    printed = [f"{100 * end:.1f}" for interval in both for end in interval]
    return [*(f"{s:.1f}" for s in shares), str(TEST_CLIPS), *printed]


def choice_of_alpha():
    values = TABLES["alpha_sweep"].column("linear_micro")
    luck = best_of_noise(10, statistics.stdev(values))
    return [f"{max(values) - values[-1]:.2f}", f"{luck:.2f}"]


def suitable_alpha():
    values = TABLES["alpha_sweep"].column("linear_micro")
    assert sorted(values)[1] == values[4] == 71.712  # alpha 0.4
    return [str(len(values))]


def finetuning():
    sweep = TABLES["alpha_sweep"]
    found = (sweep.column(f"finetuned_{part}_micro") for part in ("noisy", "clean"))
    (pair,) = compare(records("esc10_finetuned"), reader="finetuned")
    assert pair["b"] == "ACL, alpha 0.3, paper_scaled"
    return [*(f"{values[3] - values[-1]:+.3f}" for values in found), *with_ends(pair)]


def head_of_z():
    both = [r for r in unlabelled("train") if r.recipe.loss.reduction == "paper_scaled"]
    plain, mixed = sorted(both, key=lambda r: -r.recipe.loss.alpha)
    gaps = [f"{run.geometry[s]['class_gap']:.3f}" for s in "hz" for run in (plain, mixed)]
    worst = max(row["head_deviation"] for row in released()["folders"].values())
    assert len(released()["folders"]) == 4  # "in four folders"
    return [*gaps, below(worst, "0.0001")]


@functools.cache
def released():
    return json.loads((ROOT / "book" / "results" / "published_features.json").read_text())


def tolerance_at_03():
    cells = released()["cells"]
    assert [c["folder"] for c in cells if not c["agrees"]] == ["t0.3a0.4"]
    return [str(sum(c["agrees"] for c in cells)), str(len(cells)), "4"]


def alphas_of_figure_3():
    table = TABLES["temperature"]
    return [
        str(len(set(table.column("alpha")) - {1.0})),
        str(len(set(table.column("temperature")))),
    ]


def stability():
    rows = TABLES["temperature"].rows
    mixed, plain = ([r[2] for r in rows if (r[1] != 1) == acl] for acl in (True, False))
    printed = [f"{statistics.stdev(values):.2f}" for values in (mixed, plain)]
    ours = []
    for sweep in ("synthetic", "fold"):
        for alpha in (0.3, 1.0):
            cells = [p for p in sweeps() if (p["sweep"], p["alpha"]) == (sweep, alpha)]
            assert len(cells) == 5
            ours.append(statistics.stdev(p["measures"]["linear"]["value"] for p in cells))
    return [*printed, "0.3", *(f"{spread:.2f}" for spread in ours)]


MEASURED = {
    "Three files in both lists": lambda: ["3", f"{PUBLISHED['all']:,}"],
    "Order of the labels": lambda: [
        str(sum(str(k) != at for k, at in enumerate(sorted(map(str, range(20)))))),
        "20",
    ],
    "Resampling": resampling,
    "A constant on the waveform": constant_on_the_waveform,
    "Storage of log-mels": lambda: [
        f"{(x.half().float() - x).abs().max():.3f}" for x in [torch.linspace(-8, 6, 100_001)]
    ],
    "Standard deviation of the inputs": standard_deviation,
    "Last start of a patch": lambda: ["1", str(502 - 101 + 1)],
    "Overlap of the two patches": overlap,
    "Dimension of z": lambda: [parameters(ProjectionHead(512, 512, d)) for d in (512, 128)],
    "Supervised network": lambda: [parameters(BaselineCNN(20))],
    "Size of a run": size,
    "Inner product in eq. 2": inner_product,
    "Margin": lambda: [f"{math.degrees(recipe('paper_code').loss.margin):.1f}"],
    "Sum over pairs, supervised": supervised_sum,
    "Last batch of an epoch": lambda: (
        weights(15_813 % 128, "paper_code") + weights(128, "paper_code")
    ),
    "Guard of arccos": guard_of_arccos,
    "Guard of NT-Xent": lambda: [f"{math.log(1 + 1e-10 / math.exp(-1 / 0.2)):.1e}"],
    "Precision": precision,
    "Seeds": seeds,
    "Accuracy": accuracy,
    "Intervals": intervals,
    "Choice of alpha, self-supervised": choice_of_alpha,
    "Which alpha is suitable": suitable_alpha,
    "Fine-tuning": finetuning,
    "Head of z": head_of_z,
    "Tolerance at 0.3": tolerance_at_03,
    "Scale of the inputs": scale_of_the_inputs,
    "Alpha": alphas_of_figure_3,
    "Stability over temperatures": stability,
}


@pytest.mark.parametrize("what", ROWS)
def test_the_last_column_is_computed(what):
    wanted = MEASURED.get(what, list)()
    assert numbers(ROWS[what][-1]) == wanted, f"{what} should have {wanted}"


def test_every_number_that_is_computed_has_its_row():
    assert set(MEASURED) <= set(ROWS)


# --- the column before: what is set here ----------------------------------------------------------

NAMES = {*PROFILES, *RECIPES, *RESAMPLERS, *losses.REDUCTIONS}
SETTINGS = {
    name: {
        k: v
        for part in (values, *values.values())
        if isinstance(part, dict)
        for k, v in part.items()
    }
    for name, values in ((name, asdict(recipe(name))) for name in RECIPES)
}


@pytest.mark.parametrize("what", ROWS)
def test_settings_are_those_of_the_recipes(what):
    """`name=value` holds in the recipe that the same clause names, else in one of the three."""
    for clause in ROWS[what][2].split(";"):
        words = re.findall(r"`([^`]+)`", clause)
        own = [w for w in words if w in RECIPES] or [n for n in RECIPES if n.startswith("paper_")]
        for word in words:
            setting, _, value = word.partition("=")
            if value:
                assert ast.literal_eval(value) in [SETTINGS[n][setting] for n in own], word
            elif word not in NAMES and word not in SETTINGS["acl"]:
                module, *names = word.split(".")
                functools.reduce(getattr, names, importlib.import_module(f"acl_lib.{module}"))
