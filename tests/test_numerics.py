"""The blocks of code of book/numerics.md, run in order, print what the page says they print."""

import contextlib
import io
import re

import torch

from acl_lib.publish import ROOT

PAGE = (ROOT / "book" / "numerics.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.S)


def test_every_block_is_followed_by_what_it_prints():
    kinds = [kind for kind, _ in BLOCKS]
    assert kinds == ["python", "text"] * (len(kinds) // 2)
    assert max(len(line) for _, block in BLOCKS for line in block.splitlines()) <= 78


def test_the_blocks_print_what_the_page_says():
    names, threads = {}, torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for (_, code), (_, said) in zip(BLOCKS[::2], BLOCKS[1::2], strict=True):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(code, names)
            assert printed.getvalue() == said, f"book/numerics.md: another result of\n{code}"
    finally:
        torch.set_num_threads(threads)
