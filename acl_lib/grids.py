"""Which runs belong together: a grid, as data, with its question and its rule.

For instance:

    grid = Grid.read("grids/alpha_esc10.yaml")
    grid.found()["alpha 0.3", ""][0].table()
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import yaml

from . import config
from .config import Recipe
from .records import MEASURE, READERS, Record, paired
from .statistics import seed_interval

KEYS = (
    "question rule detectable cost recipe notebook settings arms conditions seeds baseline reader "
    "records"
).split()
WORDS = "question rule detectable cost recipe notebook baseline reader records".split()


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
    is a `recipe`, or a `notebook`, whose parameters the settings then are. Where two say the same
    setting, that of an arm goes before that of a condition, and both before `settings`; an arm may
    also name another `recipe`.
    """

    name: str
    question: str
    rule: str  # how the answer will be decided, written before the runs
    detectable: str  # the difference that the runs would find, and from what that is known
    cost: str
    cells: tuple[Cell, ...]  # seed by seed: what is compared is made close in time
    baseline: str  # the arm that all others are compared with
    reader: str  # of the trained representation; see `records.READERS`

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        seeds: Sequence[int] | None = None,
        records: str | Path | None = None,
        **settings: object,
    ) -> Grid:
        """A grid from its file.

        Args:
            seeds: instead of the file's.
            records: folder of the records, instead of the file's.
            settings: of all its runs, instead of the file's; in the words of `config.recipe`, or
                parameters of the notebook. What arms or conditions say stays.

        Raises:
            ValueError: the file is no grid; an unknown key, setting or value is named.
            FileNotFoundError: it is not there, or its notebook is not.
        """
        path = Path(path)
        try:
            return cls._of(path, _mapping(path), seeds, records, settings)
        except (TypeError, ValueError, yaml.YAMLError) as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def _of(
        cls,
        path: Path,
        values: dict,
        seeds: Sequence[int] | None,
        records: str | Path | None,
        settings: dict,
    ) -> Grid:
        arms = _named("arms", values["arms"])
        conditions = _named("conditions", values.get("conditions") or {"": {}})
        seeds = _seeds(values["seeds"] if seeds is None else seeds)
        common = _settings("settings", values.get("settings")) | settings
        for asked in (arms, conditions):
            if lost := sorted(k for k in settings if all(k in inner for inner in asked.values())):
                raise ValueError(f"{', '.join(lost)} is what the grid compares: edit its file")
        folder = Path(records or path.parent / (values.get("records") or path.stem))
        notebook = path.parent / values["notebook"] if "notebook" in values else None
        known = _parameters(notebook) if notebook else ()
        cells: dict[Path, Cell] = {}
        for seed, (condition, outer), (arm, inner) in itertools.product(
            seeds, conditions.items(), arms.items()
        ):
            wanted = {**common, **outer, **inner}
            if "seed" in wanted:
                raise ValueError("seed is no setting of a grid: `seeds` lists them")
            wanted["seed"] = seed
            if notebook:
                what = _notebook(notebook, known, folder, wanted)
            else:
                what = _recipe({"recipe": values["recipe"], **wanted}, folder)
            cell = Cell(arm, condition, seed, **what)
            twin = cells.setdefault(cell.target, cell)
            if twin is not cell:
                one, two = (", ".join(filter(None, [c.arm, c.condition])) for c in (twin, cell))
                raise ValueError(f"{one!r} and {two!r} are one and the same run, {cell.name}")
        baseline = values.get("baseline") or next(iter(arms))
        if baseline not in arms:
            raise ValueError(f"baseline {baseline!r} is no arm; there are {list(arms)}")
        reader = values.get("reader") or "linear"
        _check_reader(reader)
        return cls(
            name=path.stem,
            cells=tuple(cells.values()),
            baseline=baseline,
            reader=reader,
            **{k: values.get(k) or "" for k in ("question", "rule", "detectable", "cost")},
        )

    def part(self, k: int, n: int) -> tuple[Cell, ...]:
        """Every n-th cell from the k-th on: each is in one part.

        Raises:
            ValueError: k is not in 1 to n.
        """
        if not 1 <= k <= n:
            raise ValueError(f"a part is K/N with K from 1 to N, such as 2/8; got {k}/{n}")
        return self.cells[k - 1 :: n]

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


@dataclass(frozen=True)
class Findings:
    """A grid and those of its records that are there."""

    grid: Grid
    records: dict[tuple[str, str], dict[int, Record]]  # (arm, condition) -> seed -> record

    @classmethod
    def read(cls, path: str | Path, *, records: str | Path | None = None) -> Findings:
        """What is known of a grid, from its records or those of another folder."""
        grid = Grid.read(path, records=records)
        return cls(grid, grid.found())

    def with_reader(self, reader: str) -> Findings:
        """The same runs, their trained representation read by another of `records.READERS`.

        Raises:
            ValueError: there is no such reader.
        """
        _check_reader(reader)
        return replace(self, grid=replace(self.grid, reader=reader))

    @property
    def made(self) -> int:
        """Number of runs that have a record."""
        return sum(map(len, self.records.values()))

    @property
    def complete(self) -> bool:
        return self.made == len(self.grid.cells)

    def of(self, arm: str, condition: str = "") -> dict[int, Record]:
        """The records of an arm by seed; none where none was made."""
        return self.records.get((arm, condition), {})

    def values(self, arm: str, condition: str = "") -> list[float]:
        """Share of the test clips that the grid's reader got right, for each seed; or its EER."""
        records, reader = self.of(arm, condition).values(), self.grid.reader
        return [record.results["trained"][reader][MEASURE[reader]] for record in records]

    def geometry(self, arm: str, condition: str, space: str, measure: str) -> list[float]:
        """How an arm's clips lie, for each seed; names as in `records.geometry`."""
        return [r.geometry[space][measure] for r in self.of(arm, condition).values()]

    def summary(self, condition: str = "") -> dict[str, dict]:
        """Each arm with two seeds or more: per_seed, mean, and Student's interval over seeds."""
        rows = {arm: self.values(arm, condition) for arm in self.grid.arms}
        return {
            arm: {
                "per_seed": values,
                "mean": statistics.fmean(values),
                "interval": seed_interval(values),
            }
            for arm, values in rows.items()
            if len(values) > 1
        }

    def by_condition(self) -> tuple[dict[str, list], list[str]]:
        """For `figures.side_by_side`: of each arm mean and interval in every condition.

        Returns:
            arm -> (mean, lower, upper end) for each condition; the conditions in which every arm
            has two seeds or more.
        """
        made = {c: self.summary(c) for c in self.grid.conditions}
        made = {c: rows for c, rows in made.items() if len(rows) == len(self.grid.arms)}
        arms = self.grid.arms if made else ()
        rows = {
            arm: [(of[arm]["mean"], *of[arm]["interval"]) for of in made.values()] for arm in arms
        }
        return rows, list(made)

    def gains(
        self, condition: str = "", *, over: str = "seed_interval", confidence: float = 0.95
    ) -> dict[str, tuple[float, float, float]]:
        """For `figures.intervals`: each arm minus the baseline, paired, where both have two seeds.

        Args:
            over: "seed_interval", or "interval" over recordings.
        """
        rows = {}
        for arm in self.grid.arms:
            if arm != self.grid.baseline and len(self.of(arm, condition)) > 1:
                pair = self.pair(arm, condition, confidence=confidence)
                rows[arm] = (pair["difference"], *pair[over])
        return rows

    def pair(
        self, arm: str, condition: str = "", *, against: str = "", confidence: float = 0.95
    ) -> dict:
        """An arm against the grid's baseline, seed by seed; see `records.paired`.

        Args:
            against: another arm, instead of the baseline.

        Raises:
            ValueError: no seed of both is there.
        """
        plain = self.of(against or self.grid.baseline, condition)
        return paired(
            plain, self.of(arm, condition), reader=self.grid.reader, confidence=confidence
        )

    def versus(self, condition: str, other: str, *, confidence: float = 0.95) -> dict:
        """A condition against another one, the mean of all arms, seed by seed; as `pair`.

        Raises:
            ValueError: no seed of an arm is there in both.
        """
        sides = [
            {(arm, seed): r for arm in self.grid.arms for seed, r in self.of(arm, c).items()}
            for c in (other, condition)
        ]
        pair = paired(*sides, reader=self.grid.reader, confidence=confidence)
        gaps: dict[int, list[float]] = {}
        for (_, seed), gap in zip(pair["seeds"], pair["per_seed"], strict=True):
            gaps.setdefault(seed, []).append(gap)
        per_seed = [statistics.fmean(gaps[seed]) for seed in sorted(gaps)]
        ends = list(seed_interval(per_seed, confidence=confidence)) if per_seed[1:] else None
        return pair | {"seeds": sorted(gaps), "per_seed": per_seed, "seed_interval": ends}


def find(cell: Cell) -> Record | None:
    """The record of a cell, if its run was made."""
    if cell.recipe is None or not cell.target.exists():
        return None
    again = "move it away, and `acl sweep` makes the run"
    try:
        record = Record.read(cell.target)
    except ValueError as error:
        raise ValueError(f"{error}; {again}") from None
    if record.recipe != cell.recipe:
        raise ValueError(f"{cell.target} holds another recipe than its name says; {again}")
    return record


def label(recipe: Recipe) -> str:
    """A short name: the recipe's, what differs from its plain form, and the seed."""
    mine, usual = flat(recipe), _usual(recipe.name, recipe.profile, recipe.corpus)
    told = ("name", "seed")
    changed = [f"{k}={_short(v)}" for k, v in mine.items() if v != usual[k] and k not in told]
    return ",".join([recipe.name, *changed, f"seed={recipe.seed}"])


@functools.cache
def _usual(name: str, profile: str, corpus: str) -> dict:
    """All settings of a recipe in its plain form."""
    try:
        return flat(config.recipe(name, profile=profile, corpus=corpus))
    except ValueError:  # one from a file has a name of its own
        return flat(Recipe(corpus=corpus))


def flat(recipe: Recipe) -> dict:
    """All settings by their own names."""
    parts = asdict(recipe)
    inner = {k: v for part in parts.values() if isinstance(part, dict) for k, v in part.items()}
    return {k: v for k, v in parts.items() if not isinstance(v, dict)} | inner


def _short(value: object) -> str:
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)


class _Once(yaml.SafeLoader):
    """YAML that refuses a name that stands twice, where the usual reader forgets the first.

    And what refers to another place: a few lines of such can stand for more than a memory holds.
    """

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            alias = self.peek_event()
            raise ValueError(
                f"line {alias.start_mark.line + 1}: *{alias.anchor} refers to another place: "
                "write out what stands there"
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        if double := [name for i, name in enumerate(names) if name in names[:i]]:
            raise ValueError(f"{double[0]!r} stands twice below line {node.start_mark.line}")
        return super().construct_mapping(node, deep)


def _mapping(path: Path) -> dict:
    """What a grid's file says, with the keys that it needs and no other."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Once)
    except yaml.YAMLError as error:
        raise ValueError(f"this is no YAML: {error}") from None
    except RecursionError:
        raise ValueError("this is no grid: one thing lies in another without end") from None
    if not isinstance(values, dict):
        raise ValueError(f"this is no grid: a grid has {', '.join(KEYS)}")
    if unknown := sorted(map(str, set(values) - set(KEYS))):
        raise ValueError(f"unknown {', '.join(unknown)}; a grid has {', '.join(KEYS)}")
    if missing := sorted({"question", "arms", "seeds"} - set(values)):
        raise ValueError(f"{', '.join(missing)} is missing; a grid needs it")
    if ("recipe" in values) == ("notebook" in values):
        raise ValueError("a grid runs a recipe or a notebook: one of them")
    for key in WORDS:
        if not isinstance(values.get(key), str | None) or "\0" in (values.get(key) or ""):
            raise ValueError(f"{key} must be text; got {values[key]!r}")
    return values


def _check_reader(reader: object) -> None:
    if reader not in READERS:
        raise ValueError(f"unknown reader {reader!r}; there are {', '.join(READERS)}")


def _seeds(given: object) -> list[int]:
    if not isinstance(given, list) or not given or any(type(seed) is not int for seed in given):
        raise ValueError(f"seeds must be a list of whole numbers, such as [0, 1]; got {given!r}")
    return given


def _named(what: str, given: object) -> dict[str, dict]:
    """`{alpha: [0, 0.5]}` spelled out: "alpha 0" and "alpha 0.5" with their settings."""
    named: dict[str, dict] = {}
    for name, value in _settings(what, given).items():
        if isinstance(value, list):
            named |= {f"{name} {one}": _settings(what, {name: one}) for one in value}
        else:
            named[name] = _settings(f"{what}: {name}", value)
    if not named:
        raise ValueError(f"there are no {what}")
    return named


def _settings(what: str, given: object) -> dict[str, object]:
    if not isinstance(given, dict | None):
        raise ValueError(f"{what} must be names with values, such as {{alpha: 0.5}}; got {given!r}")
    return {str(name): value for name, value in (given or {}).items()}


def _recipe(settings: dict, folder: Path) -> dict:
    recipe = config.recipe(settings.pop("recipe"), **settings)
    kind = f"{recipe.corpus}-{recipe.profile}".replace(":", "_").replace("/", "_")
    return {"recipe": recipe, "target": folder / kind / f"{label(recipe)}.json"}


def _notebook(path: Path, known: Sequence[str], folder: Path, parameters: dict) -> dict:
    if unknown := sorted(set(parameters) - set(known)):
        there = f"it has {', '.join(known)}" if known else 'no cell of it is tagged "parameters"'
        raise ValueError(f"{path.name} has no parameter {', '.join(unknown)}; {there}")
    changed = [f"{k}={_short(v)}" for k, v in parameters.items()]
    name = ",".join([path.stem, *changed]).replace("/", "_") + ".ipynb"
    return {
        "recipe": None,
        "notebook": path,
        "parameters": parameters,
        "target": folder / name,
    }


def _parameters(path: Path) -> tuple[str, ...]:
    """Names in the cell of a notebook that is tagged "parameters"."""
    import papermill

    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: `notebook` is relative to the grid's file")
    return tuple(papermill.inspect_notebook(path))
