"""A grid of runs: what to run is data, every run is made once, and all of them make one table.

For instance::

    grid = Grid.read("grids/alpha_esc10.yaml")
    run_grid(grid, jobs=2)
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from . import config
from .config import Recipe

KEYS = (
    "question rule detectable cost recipe notebook settings arms conditions seeds baseline reader "
    "records"
).split()


@dataclass(frozen=True)
class Cell:
    """One run of a grid."""

    arm: str
    condition: str
    seed: int
    recipe: Recipe


@dataclass(frozen=True)
class Grid:
    """Which runs belong together, and what is asked of them.

    A grid is a YAML file: `arms` are the methods that are compared, each with its settings;
    `conditions`, if any, are the circumstances in which all of them are; both are crossed with
    `seeds`. Instead of names, `arms` and `conditions` may list the values of a setting.
    """

    name: str
    path: Path
    question: str
    rule: str  # how the answer will be decided, written before the runs
    detectable: str  # the difference that the runs would find, and from what that is known
    cost: str
    cells: tuple[Cell, ...]
    baseline: str  # the arm that all others are compared with
    reader: str  # of the trained representation; see `records.READERS`
    records: Path  # folder of the records

    @classmethod
    def read(
        cls, path: str | Path, *, seeds: Sequence[int] | None = None, **settings: object
    ) -> Grid:
        """A grid from its file.

        Args:
            seeds: instead of the file's.
            settings: of all its runs, instead of the file's; in the words of `config.recipe`.

        Raises:
            ValueError: the file is no grid; an unknown key, setting or value is named.
        """
        path = Path(path)
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is no YAML: {error}") from None
        if not isinstance(values, dict) or (unknown := set(values) - set(KEYS)):
            what = f"unknown {sorted(unknown)}" if isinstance(values, dict) else "no mapping"
            raise ValueError(f"{path}: {what}; a grid has {', '.join(KEYS)}")
        if missing := {"question", "recipe", "arms", "seeds"} - set(values):
            raise ValueError(f"{path}: a grid needs {', '.join(sorted(missing))}")
        common = {"recipe": values["recipe"], **(values.get("settings") or {}), **settings}
        arms = _named(values["arms"])
        conditions = _named(values.get("conditions") or {"": {}})
        cells = [
            Cell(arm, condition, seed, _recipe(path, {**common, **inner, **outer}, seed))
            for seed, (condition, outer), (arm, inner) in itertools.product(
                values["seeds"] if seeds is None else seeds, conditions.items(), arms.items()
            )
        ]
        baseline = values.get("baseline") or next(iter(arms))
        if baseline not in arms:
            raise ValueError(f"{path}: baseline {baseline!r} is no arm; there are {list(arms)}")
        return cls(
            name=path.stem,
            path=path,
            cells=tuple(cells),
            baseline=baseline,
            reader=values.get("reader") or "linear",
            records=path.parent / (values.get("records") or "../runs/records"),
            **{k: values.get(k) or "" for k in ("question", "rule", "detectable", "cost")},
        )

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.arm for cell in self.cells))

    @property
    def conditions(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.condition for cell in self.cells))

    def record_path(self, cell: Cell) -> Path:
        """Where the record of a cell lies, whichever grid made it."""
        r = cell.recipe
        return self.records / f"{r.corpus}-{r.profile}".replace(":", "_") / f"{label(r)}.json"


def label(recipe: Recipe) -> str:
    """A short name: the recipe's, what differs from its plain form, and the seed."""
    plain = config.recipe(recipe.name, profile=recipe.profile, corpus=recipe.corpus)
    mine, usual = _flat(recipe), _flat(plain)
    changed = [f"{k}={_short(v)}" for k, v in mine.items() if v != usual[k] and k != "seed"]
    return ",".join([recipe.name, *changed, f"seed={recipe.seed}"])


def _flat(recipe: Recipe) -> dict:
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


def _recipe(path: Path, settings: dict, seed: int) -> Recipe:
    try:
        return config.recipe(settings.pop("recipe"), seed=seed, **settings)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
