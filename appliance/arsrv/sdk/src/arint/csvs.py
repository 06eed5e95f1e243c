"""CSV bodies as rows, and rows as CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

__all__ = ["Rows", "parse", "text_of"]


class Rows(list[Any]):
    """The rows of a CSV body, each a list of texts."""

    __slots__ = ()

    def dicts(self) -> list[dict[str, str]]:
        """The rows behind the first, by the names in the first; what a row lacks is left out."""
        if not self:
            return []
        names = [name.strip() for name in self[0]]
        return [dict(zip(names, row, strict=False)) for row in self[1:]]


def parse(text: str) -> Rows:
    """The rows of a CSV text; empty lines are left out, quotes may hold commas and line breaks."""
    if text.startswith("\ufeff"):
        text = text[1:]
    sample = text[:4096].partition("\n")[0]
    # The separator that the first line has most of.
    delimiter = max(",;\t|", key=sample.count)
    try:
        return Rows(row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if row)
    except csv.Error as exc:
        raise ValueError(str(exc)) from None


def text_of(payload: Any) -> str:
    """Rows as CSV: lists as they are, dicts under a first line with their keys."""
    from arint.sio import as_dict

    rows = payload if isinstance(payload, (list, tuple)) else [payload]
    out = io.StringIO(newline="")
    if rows and all(isinstance(row, (list, tuple)) for row in rows):
        csv.writer(out).writerows(rows)
        return out.getvalue()
    dicts = [as_dict(row) for row in rows]
    names = list(dict.fromkeys(name for row in dicts for name in row))
    writer = csv.DictWriter(out, names)
    if names:
        writer.writeheader()
    writer.writerows(dicts)
    return out.getvalue()
