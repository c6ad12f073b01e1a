"""Tables from anywhere: rows with the columns that are needed, names that stay in their folder."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path


def read_rows(
    path: Path, columns: Sequence[str], *, may_be_empty: Sequence[str] = ()
) -> Iterator[tuple[str, dict[str, str]]]:
    """Read a CSV in UTF-8, with or without a byte-order mark, with any ends of lines.

    Args:
        columns: those that the header must have and every row must fill; others may be there.
        may_be_empty: those of them that a row need not fill.

    Yields:
        Where a row stands, for messages ("FILE, line 3"), and its values by column.

    Raises:
        ValueError: no such column; a row with too few or too many values, or none in a needed
            column; what is no CSV in UTF-8. The file and line are named.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            if lacking := set(columns) - set(reader.fieldnames or ()):
                raise ValueError(
                    f"{path} has no column {sorted(lacking)}; it has {reader.fieldnames}"
                )
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise ValueError(
                        f"{where}: need {len(reader.fieldnames)} values, as in the header, "
                        f"got {row}"
                    )
                if empty := [c for c in columns if not row[c] and c not in may_be_empty]:
                    raise ValueError(f"{where}: nothing stands under {', '.join(empty)}: {row}")
                yield where, row
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.reader.line_num}: {error}") from None
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path} is not in UTF-8 ({error.reason} behind line {reader.reader.line_num}): "
                "save it as CSV UTF-8"
            ) from None


def below(root: Path, name: str, *, where: str) -> Path:
    """The path of a file that a table names, if it lies below the table's folder.

    Args:
        name: with forward slashes; an absolute one must lie below it too.
        where: what names it, for the message.

    Raises:
        ValueError: a path that leads elsewhere, or is none.
    """
    path = root / name  # of an absolute one, itself
    if ".." in path.parts or "\0" in name or not path.is_relative_to(root) or name[1:2] == ":":
        raise ValueError(
            f"{where}: {name!r} does not lie below {root}: move the sounds there, and name them "
            "by their paths from there"
        )
    return path
