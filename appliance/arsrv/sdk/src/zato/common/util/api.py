"""Small helpers that services import."""

from __future__ import annotations

import secrets
from typing import Any, Iterable, Iterator

from arint.naming import uncamelify
from bunch import Bunch, bunchify, unbunchify

__all__ = [
    "Bunch",
    "asbool",
    "as_bool",
    "as_list",
    "bunchify",
    "grouper",
    "new_cid",
    "spawn_greenlet",
    "uncamelify",
    "unbunchify",
    "utcnow",
]


def grouper(n: int, iterable: Iterable[Any], fillvalue: Any = None) -> Iterator[tuple[Any, ...]]:
    """The items in groups of `n`; the last is filled up."""
    import itertools

    parts = [iter(iterable)] * n
    return itertools.zip_longest(*parts, fillvalue=fillvalue)


def asbool(value: Any) -> bool:
    """Text such as `true`, `yes`, `on` and `1`, or their opposites, as a truth value; raises ValueError."""
    if isinstance(value, str):
        text = value.strip().lower()
        if text in ("true", "yes", "on", "y", "t", "1"):
            return True
        if text in ("false", "no", "off", "n", "f", "0"):
            return False
        raise ValueError(f"`{value}` is not a truth value")
    return bool(value)


as_bool = asbool


def as_list(value: Any, sep: str = ",") -> list[Any]:
    """Text with separators as a list; other values in a list of one, lists as they are."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(sep)] if value else []
    if isinstance(value, (list, tuple)):
        return list(value)
    return [value]


def new_cid(bytes: int = 12) -> str:
    """A new correlation id: 24 hexadecimal digits."""
    return secrets.token_hex(bytes)


def utcnow() -> Any:
    """This moment in UTC, without a zone."""
    import datetime

    return datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)


def spawn_greenlet(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Raises: workers have threads and coroutines, and no greenlets."""
    from arint.absent import not_in_this_release

    raise not_in_this_release("spawn_greenlet")
