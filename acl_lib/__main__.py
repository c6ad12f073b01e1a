"""The command line: `acl run contrastive --corpus esc10 --profile laptop --seed 0`."""

from __future__ import annotations

import argparse
import ast
import os
import sys
from dataclasses import replace
from pathlib import Path

from .config import LOSSES, PROFILES, recipe


def main(argv: list[str] | None = None) -> int:
    """Run one command; errors the reader can mend come as one message, not a traceback."""
    parser = argparse.ArgumentParser(prog="acl", description="Contrastive learning of audio.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    one = commands.add_parser("run", help="pretrain an encoder, probe it, write the record")
    one.add_argument("recipe", choices=list(LOSSES), help="contrastive: NT-Xent; acl: the paper's")
    one.add_argument("--corpus", default="synthetic", help="synthetic, esc10, esc50, fsdnoisy18k")
    one.add_argument("--profile", default="quick", choices=list(PROFILES))
    one.add_argument("--seed", type=int, default=0)
    one.add_argument(
        "--pretrain-on",
        default="train",
        choices=["train", "all"],
        help="train: the test fold is unseen (default); all: every clip, without labels",
    )
    one.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any setting of the recipe, such as alpha=0.5 or epochs=10",
    )
    one.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    one.add_argument("--threads", type=int, help="processor threads (default: all cores)")
    one.add_argument("--record", type=Path, metavar="FILE", help="also write the record here")
    one.add_argument("--again", action="store_true", help="run even if the record exists")
    one.add_argument(
        "--skip-unreadable", action="store_true", help="take unreadable files as silence"
    )

    look = commands.add_parser("corpora", help="what is in a corpus, and what is wrong with it")
    look.add_argument("corpus", nargs="?", default="synthetic")
    look.add_argument("--download", action="store_true", help="fetch it first, if it can be")

    args = parser.parse_args(argv)
    try:
        return _run(args) if args.command == "run" else _corpora(args)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"acl: {error}", file=sys.stderr)
        return 1


def _run(args: argparse.Namespace) -> int:
    # read when torch is imported: threads that spin while they wait slow a busy machine down
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch  # after the arguments, so that a typing error answers at once

    from .experiments import run

    options = {key: getattr(args, key) for key in ("profile", "corpus", "seed", "pretrain_on")}
    settings = dict(_setting(text) for text in args.set)
    if own := settings.keys() & {"name", *options}:
        raise ValueError(f"--set is not for {', '.join(sorted(own))}: see acl run --help")
    wanted = recipe(args.recipe, **options, **settings)
    if args.threads is not None:
        if args.threads < 1:
            raise ValueError(f"--threads must be at least 1; got {args.threads}")
        torch.set_num_threads(args.threads)
    record = run(wanted, device=args.device, again=args.again, skip_unreadable=args.skip_unreadable)
    if args.record:
        record = replace(record, path=args.record)
        record.write()
    print(record.table())
    print(f"record: {record.path}")
    return 0


def _corpora(args: argparse.Namespace) -> int:
    from .datasets import open_corpus

    print(open_corpus(args.corpus, download=args.download).validate())
    return 0


def _setting(text: str) -> tuple[str, object]:
    name, given, value = text.partition("=")
    if not given:
        raise ValueError(f"--set takes NAME=VALUE; got {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


if __name__ == "__main__":
    sys.exit(main())
