"""A table on disk that grows row by row: a run that was stopped goes on where it was; and what to measure."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

__all__ = ["Record", "words_of"]


class Record:
    """Rows of a CSV file beside this one; the first columns say what a row is about."""

    def __init__(self, name: str, fields: tuple[str, ...]) -> None:
        self.path, self.fields = Path(__file__).with_name(name), fields
        self.rows: list[dict[str, str]] = []
        if self.path.exists():
            with self.path.open(newline="") as file:
                self.rows = list(csv.DictReader(file))

    def has(self, *key: object) -> bool:
        """Whether a row about this is there."""
        return bool(self.about(*key))

    def add(self, *rows: tuple[object, ...]) -> None:
        """Append rows, all or none of them in one write, and print them."""
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            if new:
                table.writerow(self.fields)
            table.writerows(rows)
        for row in rows:
            self.rows.append(dict(zip(self.fields, map(str, row), strict=True)))
            print(*(f"{cell!s:.40}" for cell in row), sep="  ", flush=True)

    def about(self, *key: object) -> list[dict[str, str]]:
        """The rows about this."""
        names = self.fields[: len(key)]
        return [row for row in self.rows if tuple(row[name] for name in names) == tuple(map(str, key))]


def words_of(
    name: str, about: str | None, robust: str | None, *, images: int, gradients: int
) -> argparse.ArgumentParser:
    """What a table over networks and norms can be asked for on the command line."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=about)
    parser.add_argument("robust", nargs="?", default=robust, help="weights of an adversarially trained mnist-cnn")
    parser.add_argument("--networks", nargs="+", default=None, help="mlp, undefended, robust")
    parser.add_argument("--norms", nargs="+", default=["linf", "l2", "l1"])
    parser.add_argument("--images", type=int, default=images)
    parser.add_argument("--gradients", type=int, default=gradients)
    return parser
