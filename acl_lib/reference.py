"""What the reference pages need besides Sphinx's autodoc: signatures as written, fields, links.

An extension of Sphinx, named in `_config.yml`; nothing else imports it.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import io
import re
import textwrap
import tokenize


def signature(thing) -> tuple[str, str | None] | None:
    """Parameters and result of a function or class as its source has them, shapes included.

    Sphinx would print the annotations as Python has evaluated them, at length.

    Returns:
        None for what has none of its own, such as a class that inherits `__init__`.
    """
    tree = _tree(thing)
    if isinstance(tree, ast.ClassDef):
        if dataclasses.is_dataclass(thing):
            rows = [f"{name}: {kind}" for name, kind, _ in fields(thing)]
            return (f"({', '.join(rows)})", None) if rows else None
        tree = next((n for n in tree.body if getattr(n, "name", "") == "__init__"), None)
        if tree is None:
            return None
        tree.returns = None
    for names in (tree.args.posonlyargs, tree.args.args):
        if names and names[0].arg in ("self", "cls") and names[0].annotation is None:
            del names[0]
    for node in ast.walk(tree.args):
        if isinstance(node, ast.arg) and node.annotation:
            node.annotation = _annotation(node.annotation)
    returns = ast.unparse(_annotation(tree.returns)) if tree.returns else None
    return f"({ast.unparse(tree.args)})", returns


def fields(thing: type) -> list[tuple[str, str, str]]:
    """Name, type with default, and comment of each field of a dataclass, as its source has them.

    Those of the classes above it come first; a class that adds none of its own has none.
    """
    if not any(isinstance(node, ast.AnnAssign) for node in _tree(thing).body):
        return []
    above = [fields(base) for base in thing.__bases__ if dataclasses.is_dataclass(base)]
    source = textwrap.dedent(inspect.getsource(thing))
    comments, waiting = {}, []  # line -> what is said beside it, or on the lines above it
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        line, text = token.start[0], token.string.lstrip("# ")
        if token.type == tokenize.COMMENT and token.line.strip().startswith("#"):
            waiting.append(text)
        elif token.type == tokenize.COMMENT:
            comments[line] = text
        elif token.type == tokenize.NAME and waiting:
            comments[line], waiting = " ".join(waiting), []
    rows = [row for group in above for row in group]
    for node in _tree(thing).body:
        if isinstance(node, ast.AnnAssign):
            kind, default = ast.unparse(_annotation(node.annotation)), node.value
            made = [k.value for k in getattr(default, "keywords", ()) if k.arg == "default_factory"]
            if made:  # field(default_factory=list)
                kind += f" = {ast.unparse(made[0])}()"
            elif default:
                kind += f" = {ast.get_source_segment(source, default)}"
            comment = comments.get(node.lineno) or comments.get(node.end_lineno, "")
            rows.append((node.target.id, kind, comment))
    return rows


def setup(app) -> dict:
    """As an extension of Sphinx: what its autodoc asks us while it reads the code."""

    class Property(app.registry.documenters["property"]):
        def add_directive_header(self, sig: str) -> None:
            super().add_directive_header(sig)
            if (written := signature(self._get_property_getter())) and written[1]:
                self.add_line(f"   :type: {written[1]}", self.get_sourcename())

    app.add_autodocumenter(Property, override=True)
    app.connect("autodoc-process-signature", _show_signature)
    app.connect("autodoc-process-docstring", _mend, priority=400)  # napoleon comes at 500
    app.connect("autodoc-process-docstring", _add_fields, priority=600)
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _tree(thing):
    return ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]


def _annotation(node: ast.expr) -> ast.expr:
    """An annotation without the quotes around a class, and without the space in `" N"`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return ast.parse(node.value, mode="eval").body
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            part.value = part.value.strip()
    return node


def _in_a_table(thing) -> bool:
    """Whether the fields are explained by comments, not by the docstring."""
    explained = re.search(r"^\s*(Args|Attributes):$", thing.__doc__ or "", re.M)
    return dataclasses.is_dataclass(thing) and not explained


def _show_signature(app, what, name, thing, options, args, returns):
    if what in ("module", "property"):
        return None
    if what == "class" and _in_a_table(thing):
        return "", None
    return signature(thing) or ("", None)


def _mend(app, what, name, thing, options, lines: list[str]) -> None:
    """What our docstrings leave to the reader's eye, said in reStructuredText."""
    text = "\n".join(lines)
    if what == "module":  # indented lines are code
        text = re.sub(r"\n\n(?=    \S)", "\n\n.. code-block:: text\n\n", text)
    # |x| outside of code is a length
    code_or_bars = r"(`[^`]*`)|(?<=\s)\|([\w +-]+)\|(?=[\s^,.])"
    text = re.sub(code_or_bars, lambda m: m[1] or rf"\|{m[2]}\|", text)
    # an empty word: napoleon takes what stands before a colon in the first line for a type
    text = re.sub(r"^(Returns:\n)( +)(?=\S)", r"\1\2\\ \n\2", text, flags=re.M)
    lines[:] = text.split("\n")


def _add_fields(app, what, name, thing, options, lines: list[str]) -> None:
    if what == "class" and _in_a_table(thing) and (rows := fields(thing)):
        lines += [".. list-table::", "   :class: acl-fields", "   :widths: auto", ""]
        for field, kind, comment in rows:
            lines += [f"   * - ``{field}``", f"     - ``{kind}``", f"     - {comment}"]
        lines.append("")


def _resolve(app, env, node, contnode):
    """A name as its module sees it: ours becomes a link, another library's stays text."""
    if node.get("refdomain") != "py" or not node.get("py:module"):
        return None
    domain, name = env.get_domain("py"), node["reftarget"]
    found = importlib.import_module(node["py:module"])
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not None:
        home = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
        if not home.startswith("acl_lib."):
            return contnode
    else:  # imported inside a function; if there are two of that name or none, Sphinx complains
        matches = domain.find_obj(env, None, None, name, None, 1)
        home = matches[0][0] if len(matches) == 1 else ""
    return domain.resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], home, node, contnode
    )
