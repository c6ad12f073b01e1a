"""Which runs belong together: a grid, as data, with its question and its rule.

For instance::

    grid = Grid.read("grids/alpha_esc10.yaml")
    grid.found()["alpha 0.3", ""][0].table()
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import yaml

from . import config
from .config import Recipe
from .records import Record

KEYS = (
    "question rule detectable cost recipe notebook settings arms conditions seeds baseline reader "
    "records"
).split()


@dataclass(frozen=True)
class Cell:
    """One run of a grid: of a recipe, or of a notebook with some parameters."""

    arm: str
    condition: str
    seed: int
    recipe: Recipe | None
    target: Path  # where its record, or the executed notebook, lies
    notebook: Path | None = None
    parameters: dict = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.target.stem

    def key(self) -> str:
        """Sixteen hexadecimal letters that change with all that is asked for."""
        if self.recipe:
            return self.recipe.digest()
        what = self.notebook.read_bytes() + json.dumps(self.parameters, sort_keys=True).encode()
        return hashlib.sha256(what).hexdigest()[:16]


@dataclass(frozen=True)
class Grid:
    """Which runs belong together, and what is asked of them.

    A grid is a YAML file: `arms` are the methods that are compared, each with its settings;
    `conditions`, if any, are the circumstances in which all of them are; both are crossed with
    `seeds`. Instead of names, `arms` and `conditions` may list the values of a setting. What runs
    is a `recipe`, or a `notebook`, whose parameters the settings then are.
    """

    name: str
    question: str
    rule: str  # how the answer will be decided, written before the runs
    detectable: str  # the difference that the runs would find, and from what that is known
    cost: str
    cells: tuple[Cell, ...]  # the seed changes last: what is compared is made close in time
    baseline: str  # the arm that all others are compared with
    reader: str  # of the trained representation; see `records.READERS`

    @classmethod
    def read(
        cls, path: str | Path, *, seeds: Sequence[int] | None = None, **settings: object
    ) -> Grid:
        """A grid from its file.

        Args:
            seeds: instead of the file's.
            settings: of all its runs, instead of the file's; in the words of `config.recipe`, or
                parameters of the notebook.

        Raises:
            ValueError: the file is no grid; an unknown key, setting or value is named.
            FileNotFoundError: it is not there, or its notebook is not.
        """
        path = Path(path)
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is no YAML: {error}") from None
        if not isinstance(values, dict) or (unknown := set(values) - set(KEYS)):
            what = f"unknown {sorted(unknown)}" if isinstance(values, dict) else "no mapping"
            raise ValueError(f"{path}: {what}; a grid has {', '.join(KEYS)}")
        if missing := {"question", "arms", "seeds"} - set(values):
            raise ValueError(f"{path}: a grid needs {', '.join(sorted(missing))}")
        if ("recipe" in values) == ("notebook" in values):
            raise ValueError(f"{path}: a grid runs a recipe, or a notebook")
        common = (values.get("settings") or {}) | settings
        arms = _named(values["arms"])
        conditions = _named(values.get("conditions") or {"": {}})
        seeds = values["seeds"] if seeds is None else seeds
        folder = path.parent / (values.get("records") or f"../runs/{path.stem}")
        cells = []
        for seed, (condition, outer), (arm, inner) in itertools.product(
            seeds, conditions.items(), arms.items()
        ):
            wanted = {**common, "seed": seed, **outer, **inner}
            try:
                if "notebook" in values:
                    what = _notebook(path.parent / values["notebook"], folder, wanted)
                else:
                    what = _recipe({"recipe": values["recipe"], **wanted}, folder)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
            cells.append(Cell(arm, condition, seed, **what))
        baseline = values.get("baseline") or next(iter(arms))
        if baseline not in arms:
            raise ValueError(f"{path}: baseline {baseline!r} is no arm; there are {list(arms)}")
        return cls(
            name=path.stem,
            cells=tuple(cells),
            baseline=baseline,
            reader=values.get("reader") or "linear",
            **{k: values.get(k) or "" for k in ("question", "rule", "detectable", "cost")},
        )

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.arm for cell in self.cells))

    @property
    def conditions(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.condition for cell in self.cells))

    def found(self) -> dict[tuple[str, str], dict[int, Record]]:
        """(arm, condition) -> seed -> record, of the runs of recipes that were made already."""
        made: dict[tuple[str, str], dict[int, Record]] = {}
        for cell in self.cells:
            if record := find(cell):
                made.setdefault((cell.arm, cell.condition), {})[cell.seed] = record
        return made


def find(cell: Cell) -> Record | None:
    """The record of a cell, if its run was made."""
    if cell.recipe is None or not cell.target.exists():
        return None
    record = Record.read(cell.target)
    if record.recipe != cell.recipe:
        raise ValueError(
            f"{cell.target} holds another recipe than its name says; move it away, and "
            "`acl sweep` makes the run"
        )
    return record


def label(recipe: Recipe) -> str:
    """A short name: the recipe's, what differs from its plain form, and the seed."""
    plain = config.recipe(recipe.name, profile=recipe.profile, corpus=recipe.corpus)
    mine, usual = flat(recipe), flat(plain)
    changed = [f"{k}={_short(v)}" for k, v in mine.items() if v != usual[k] and k != "seed"]
    return ",".join([recipe.name, *changed, f"seed={recipe.seed}"])


def flat(recipe: Recipe) -> dict:
    """All settings by their own names."""
    parts = asdict(recipe)
    inner = {k: v for part in parts.values() if isinstance(part, dict) for k, v in part.items()}
    return {k: v for k, v in parts.items() if not isinstance(v, dict)} | inner


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _named(given: Mapping) -> dict[str, dict]:
    """`{alpha: [0, 0.5]}` spelled out: "alpha 0" and "alpha 0.5" with their settings."""
    named: dict[str, dict] = {}
    for name, value in given.items():
        if isinstance(value, list):
            named |= {f"{name} {one}": {name: one} for one in value}
        else:
            named[name] = dict(value or {})
    return named


def _recipe(settings: dict, folder: Path) -> dict:
    recipe = config.recipe(settings.pop("recipe"), **settings)
    kind = f"{recipe.corpus}-{recipe.profile}".replace(":", "_").replace("/", "_")
    return {"recipe": recipe, "target": folder / kind / f"{label(recipe)}.json"}


def _notebook(path: Path, folder: Path, parameters: dict) -> dict:
    known = _parameters(path)
    if unknown := set(parameters) - set(known):
        raise ValueError(
            f"{path.name} has no parameter {', '.join(sorted(unknown))}; it has {', '.join(known)}"
        )
    changed = [f"{k}={_short(v)}" for k, v in parameters.items()]
    name = ",".join([path.stem, *changed]).replace("/", "_") + ".ipynb"
    return {
        "recipe": None,
        "notebook": path,
        "parameters": parameters,
        "target": folder / name,
    }


@functools.cache
def _parameters(path: Path) -> tuple[str, ...]:
    """Names in the cell of a notebook that is tagged "parameters"."""
    import papermill

    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: `notebook` is relative to the grid's file")
    return tuple(papermill.inspect_notebook(path))
