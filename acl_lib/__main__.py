"""The command line: `acl run contrastive --corpus esc10 --profile laptop --seed 0`."""

from __future__ import annotations

import argparse
import ast
import errno
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from .config import PROFILES, RECIPES, Recipe, from_json, recipe, with_settings

CORPUS_HELP = (
    "synthetic, esc10, esc50, fsdnoisy18k, synthetic_speakers, fsdd, voxceleb1, or folder:PATH "
    "with your own sounds"
)
FULL = "; free some space and give the same command again: what is finished is kept"
CLOSED = "; make that folder writable, or set ACL_RUNS and ACL_CACHE to one that is"
REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)), FULL),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), CLOSED),
}
EXAMPLES = """examples:
  acl run contrastive                                  half a minute on the made-up corpus
  acl run acl --set alpha=0.5 --seed 3                 another weight, another seed
  acl run supervised --corpus esc10 --profile laptop   real sounds, minutes to an hour
  acl report runs                                      all records below a folder, compared
  acl published                                        the paper's Fig. 3 from released features
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; errors the reader can mend come as one message, not a traceback."""
    args = _parser().parse_args(argv)
    # read when torch is imported: threads that spin while they wait slow a busy machine down
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return args.work(args)
    except (ValueError, OSError, FloatingPointError) as error:
        remedy = REMEDIES.get(getattr(error, "errno", None), "")
        print(f"acl: {error}{remedy}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("acl: stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="acl",
        description="Contrastive learning of audio.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, work, summary: str, more: str) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}. {more}"
        )
        made.set_defaults(work=work)
        return made

    look = command(
        "corpora",
        _corpora,
        "what is in a corpus, and what is wrong with it",
        "Reads every file: counts, durations, licences; unreadable, short, silent, doubled clips.",
    )
    look.add_argument("corpus", nargs="?", default="synthetic", help=CORPUS_HELP)
    look.add_argument("--download", action="store_true", help="fetch it first, if it can be")

    make = command(
        "prepare",
        _prepare,
        "make the log-mels of a corpus before they are used",
        "A run makes them itself; this is for a large corpus, or a machine without a GPU. "
        "All cores decode. After an interruption the same command goes on where it stopped.",
    )
    _add_recipe(make)
    make.add_argument("--download", action="store_true", help="fetch the corpus first")

    one = command(
        "run",
        _run,
        "train a network, probe it, write the record",
        "The same network untrained and log-mel statistics are asked the same questions. A run "
        "that exists is found again; one that was interrupted goes on where it stopped.",
    )
    _add_recipe(one)
    _add_machine(one)
    one.add_argument("--record", type=Path, metavar="FILE", help="also write the record here")
    one.add_argument("--again", action="store_true", help="run even if the record exists")

    ask = command(
        "probe",
        _probe,
        "ask a record's networks about another corpus, or otherwise about their own",
        "Nothing is trained but the readers. Settings of the probe: neighbours, hop, penalties, "
        "inner_folds, solver, finetune_epochs and so on.",
    )
    ask.add_argument("record", type=Path, help="record.json in the folder of a run")
    ask.add_argument("--corpus", help=f"{CORPUS_HELP}; the record's own by default")
    ask.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    ask.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])

    tell = command(
        "report",
        _report,
        "compare records: seeds, intervals, paired tests",
        "Means over seeds beside both baselines; then every two methods on the same clips, with "
        "an interval from resampled recordings and the exact McNemar test.",
    )
    tell.add_argument("records", type=Path, nargs="+", help="record files, or folders of them")

    same = command(
        "reproduce",
        _reproduce,
        "run a record again and see whether every number is the same",
        "Takes the record's recipe, device and number of threads. Names every number that differs, "
        "and then exits with 1; names code, versions and device where they are others. Of a folder "
        "it makes again what --budget affords, a few of each kind first, and writes "
        "reproduced.json there; the same command goes on.",
    )
    same.add_argument("record", type=Path, help="a record, or a folder of them with --budget")
    same.add_argument(
        "--budget", type=float, metavar="SECONDS", help="processor time for a folder, as recorded"
    )
    same.add_argument("--device", choices=["cpu", "cuda"], help="default: the record's")
    same.add_argument(
        "--speak",
        action="store_true",
        help="if every number is the same, note in book/results/repeated.json that records of this "
        "method and code are not stale",
    )

    table = command(
        "published",
        _published,
        "recompute the paper's Fig. 3 from the authors' released features",
        "Minus uniformity and tolerance of every folder found, beside the published table; then "
        "what the table does not say: the same of h, the other half of a tolerance, neighbours, "
        "and where z came from.",
    )
    table.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="folder of folders such as t0.2a0.3 (default: acl_published_features in $ACL_DATA)",
    )
    table.add_argument(
        "--download", action="store_true", help="fetch what is not the authors' file first: 150 MB"
    )
    table.add_argument("--record", type=Path, metavar="FILE", help="also write every number here")
    table.add_argument(
        "--tables", action="store_true", help="without features: what the tables say of themselves"
    )

    draw = command(
        "explorers",
        _explorers,
        "make the records again that the map and the training explorer show",
        "Trains their networks: minutes of processor time. The records go to "
        "book/results/explorers; the book makes the sounds and pictures beside them itself.",
    )
    draw.add_argument("what", choices=["build"])
    draw.add_argument("--corpus", default="synthetic", choices=["synthetic", "esc10"])
    draw.add_argument(
        "--profile",
        choices=list(PROFILES),
        help="default: quick; laptop for esc10, whose sounds quick does not tell apart",
    )
    many = command(
        "sweep",
        _sweep,
        "make all runs of a grid",
        "A grid is a YAML file with a question, the rule by which it will be answered, and the "
        "runs; see grids/. What is made already is found; what failed is tried again; after an "
        "interruption the same command goes on.",
    )
    many.add_argument("grid", type=Path)
    many.add_argument("--jobs", type=int, help="runs at a time (default: one a device, or core)")
    many.add_argument("--devices", default="", help="cuda:0,cuda:1 or cpu (default: all GPUs)")
    many.add_argument("--scheduler", metavar="ADDRESS", help="of Dask, such as tcp://host:8786")
    many.add_argument("--part", metavar="K/N", default="1/1", help="every N-th run from the K-th")
    many.add_argument(
        "--records", type=Path, metavar="FOLDER", help="of the records, instead of the grid's"
    )
    many.add_argument("--seeds", type=int, nargs="+", help="instead of the grid's")
    many.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    many.add_argument("--renew", action="store_true", help="also what older code has made")
    many.add_argument("--dry-run", action="store_true", help="say what would be made")

    judge = command(
        "verdicts",
        _verdicts,
        "the paper's claims beside our evidence",
        "By the rules that the grids state; a grid that is not complete is not judged.",
    )
    judge.add_argument("--grids", type=Path, default=Path("grids"), help="folder (grids)")
    judge.add_argument("--records", type=Path, metavar="FOLDER", help="instead of the grids' own")

    merge = command(
        "ledger",
        _ledger,
        "merge records into one table",
        "A row for each run, representation and reader, as CSV; `stale` marks what was made by "
        "code that has changed since.",
    )
    merge.add_argument("records", type=Path, nargs="*", help="files or folders (book/results)")
    merge.add_argument("--out", type=Path, metavar="FILE", help="(ledger.csv among the runs)")
    return parser


def _add_recipe(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", help=f"{', '.join(RECIPES)}; or a file: a recipe as JSON")
    command.add_argument("--corpus", help=f"{CORPUS_HELP} (default: synthetic)")
    command.add_argument(
        "--profile",
        choices=list(PROFILES),
        help="size of network and schedule (default: quick; paper for the paper's recipes)",
    )
    command.add_argument("--seed", type=int, help="decides weights and draws (default: 0)")
    command.add_argument(
        "--pretrain-on",
        metavar="CLIPS",
        help="train: the test fold is unseen (default); all: every clip, without labels; or a "
        "subset: clean, noisy, noisy_small",
    )
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any setting of the recipe, such as alpha=0.5 or epochs=10",
    )
    command.add_argument(
        "--skip-unreadable", action="store_true", help="take unreadable files as silence"
    )


def _add_machine(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    command.add_argument("--threads", type=int, help="processor threads (default: idle cores)")


def _corpora(args: argparse.Namespace) -> int:
    from .datasets import open_corpus

    print(open_corpus(args.corpus, download=args.download).validate(progress=_terminal()))
    return 0


def _prepare(args: argparse.Namespace) -> int:
    wanted = _wanted(args)
    from .datasets import open_corpus
    from .experiments import open_recipe_corpus, open_store

    if args.download:
        open_corpus(wanted.corpus, download=True)
    corpus = open_recipe_corpus(wanted)
    store = open_store(corpus, wanted, skip_unreadable=args.skip_unreadable, progress=_terminal())
    seconds = len(store.frames) * wanted.mel.hop_length / wanted.mel.sample_rate
    print(f"{corpus.name}: {len(corpus)} clips, {seconds / 3600:.2f} hours of log-mels are ready")
    return 0


def _run(args: argparse.Namespace) -> int:
    wanted = _wanted(args)
    if args.threads is not None and args.threads < 1:
        raise ValueError(f"--threads must be at least 1; got {args.threads}")
    from . import parallel  # after the arguments: a typing error is answered at once
    from .experiments import run

    with parallel.joined(args.device):
        record = run(
            wanted,
            device=args.device,
            threads=args.threads or "free",
            again=args.again,
            skip_unreadable=args.skip_unreadable,
        )
        first = parallel.is_first()
    if not first:
        return 0
    if args.record:
        record = replace(record, path=args.record)
        record.write()
    print(record.table())
    print(f"record: {record.path}")
    return 0


def _probe(args: argparse.Namespace) -> int:
    from .experiments import probe
    from .records import Record, results_table

    record = Record.read(args.record)
    settings = dict(map(_setting, args.set))
    results = probe(record, corpus=args.corpus, device=args.device, **settings)
    print(
        f"{record.recipe.name}, trained on {record.recipe.corpus}; asked about "
        f"{args.corpus or record.recipe.corpus}"
    )
    print(results_table(results))
    return 0


def _report(args: argparse.Namespace) -> int:
    from .records import read_all, report

    print(report(read_all(args.records)))
    return 0


def _reproduce(args: argparse.Namespace) -> int:
    from .again import TOLERANCE, HowFar, how_far, outcome, reproduce_folder
    from .experiments import code_fingerprint, reproduce
    from .records import Record
    from .repeated import speak_for

    if args.record.is_dir() != (args.budget is not None):
        raise ValueError(
            f"a folder takes --budget SECONDS, a record takes none; got {args.record} and "
            f"{args.budget}"
        )
    if args.record.is_dir():
        worst = 0
        for name, row in reproduce_folder(args.record, budget=args.budget):
            if args.speak and row["outcome"] == "exact":
                speak_for(Record.read(args.record / name), code_fingerprint())
            far = HowFar(**row["how_far"]) if "how_far" in row else "every number the same"
            print(f"{row['outcome']}: {name}, {far}", flush=True)
            worst |= row["outcome"] == "beyond tolerance"
        return int(worst)
    record = Record.read(args.record)
    numbers, circumstances = reproduce(record, device=args.device)
    if args.speak and not numbers:
        speak_for(record, code_fingerprint())
    print(record.table())
    if circumstances:
        print("\nwhat has changed since the record:", *circumstances, sep="\n  ")
    if numbers:
        print(f"\n{len(numbers)} numbers differ:", *numbers[:20], sep="\n  ")
        print(f"\n{outcome(numbers)}: {how_far(numbers)}\ntolerance: {TOLERANCE}")
        return 1
    print("\nrepeated exactly: every number of the record, times apart")
    return 0


def _sweep(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from .grids import Grid
    from .sweeps import run_grid, states

    settings = dict(map(_setting, args.set))
    if own := settings.keys() & {"path", "seeds", "records"}:
        raise ValueError(f"--set is not for {', '.join(sorted(own))}: see acl sweep --help")
    grid = Grid.read(args.grid, seeds=args.seeds, records=args.records, **settings)
    k, _, n = args.part.partition("/")
    if not (k.isdecimal() and n.isdecimal()):
        raise ValueError(f"--part takes K/N, such as 2/8; got {args.part!r}")
    part = int(k), int(n)
    mine = grid.part(*part)
    now = states(mine)
    made, old = now.count("done"), now.count("stale")
    todo = now.count("open") + old * args.renew
    print(f"{grid.question}\n{len(now)} runs: {made} made, {old} made by other code, {todo} to do")
    if args.dry_run:
        print(f"cost: {grid.cost}\nfind: {grid.detectable}\nrule: {grid.rule}")
        for cell, where in zip(mine, now, strict=True):
            print(f"  {where:5} {cell.name}")
    if args.dry_run or not todo:
        return 0
    devices = [name for name in args.devices.split(",") if name]
    options = {"jobs": args.jobs, "devices": devices, "scheduler": args.scheduler}
    failed, started = [], time.monotonic()
    bar = tqdm(total=todo, unit="run", desc=grid.name, disable=None)
    for i, outcome in enumerate(run_grid(grid, part=part, renew=args.renew, **options), 1):
        left = (time.monotonic() - started) / i * (todo - i)
        line = f"[{i}/{todo}] {outcome.cell.name}: {outcome.error or outcome.status}"
        line += f" in {outcome.seconds:.0f} s, {left / 60:.0f} min left"
        bar.write(line, file=sys.stdout)
        sys.stdout.flush()
        bar.update()
        failed += [outcome] if outcome.status == "failed" else []
    bar.close()
    if failed:
        what = f"{len(failed)} of {todo} runs failed; the same command tries them again"
        print(f"acl: {what}", file=sys.stderr)
    return int(bool(failed))


def _verdicts(args: argparse.Namespace) -> int:
    from .verdicts import verdicts

    for verdict in verdicts(args.grids, records=args.records):
        print(f"{verdict.verdict.upper()}: {verdict.claim}")
        print(f"  paper: {verdict.paper}\n  here: {verdict.evidence}\n  open: {verdict.needed}")
        print(f"  again: {verdict.command}\n" if verdict.command else "")
    return 0


def _ledger(args: argparse.Namespace) -> int:
    from .experiments import runs_dir
    from .ledger import ledger, write_csv

    table = ledger(args.records or [Path("book/results")])
    out = args.out or runs_dir() / "ledger.csv"
    write_csv(table, out)
    runs = table.drop_duplicates("file")
    print(f"{out}: {len(table)} rows of {len(runs)} records")
    print(f"{int(runs['stale'].sum())} records were made by code that has changed since")
    return 0


def _published(args: argparse.Namespace) -> int:
    if args.tables:
        from .published import tables_report

        for option in ("root", "download", "record"):
            if getattr(args, option):
                raise ValueError(f"--{option} is for the features: leave out --tables")
        print(tables_report())
        return 0
    from .recomputed import features_record, features_tables, write_record
    from .released import download_released_features, load_released_features

    if args.download:
        download_released_features(args.root, progress=_terminal())
    record = features_record(load_released_features(args.root))
    print(features_tables(record))
    if args.record:
        write_record(record, args.record)
        print(f"record: {args.record}")
    return 0


def _explorers(args: argparse.Namespace) -> int:
    from .explorers.build import build

    profile = args.profile or {"esc10": "laptop"}.get(args.corpus, "quick")
    for path in build(args.corpus, profile):
        print(f"record: {path}")
    return 0


def _wanted(args: argparse.Namespace) -> Recipe:
    """The recipe that the arguments describe."""
    settings = dict(map(_setting, args.set))
    options = {key: getattr(args, key) for key in ("profile", "corpus", "seed", "pretrain_on")}
    if own := settings.keys() & {"name", *options}:
        raise ValueError(f"--set is not for {', '.join(sorted(own))}: see acl run --help")
    settings |= {key: value for key, value in options.items() if value is not None}
    if not args.recipe.endswith(".json"):
        return recipe(args.recipe, **settings)
    if args.profile:
        raise ValueError("--profile is for named recipes: a file says all of it")
    try:
        return with_settings(from_json(Path(args.recipe).read_text(encoding="utf-8")), **settings)
    except ValueError as error:
        raise ValueError(f"{args.recipe}: {error}") from None


def _setting(text: str) -> tuple[str, object]:
    name, given, value = text.partition("=")
    if not given:
        raise ValueError(f"--set takes NAME=VALUE; got {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _terminal() -> bool:
    """Whether someone watches: bars are drawn there, and nowhere else."""
    return sys.stderr.isatty()


if __name__ == "__main__":
    sys.exit(main())
