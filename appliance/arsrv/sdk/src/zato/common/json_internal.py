"""`dumps` and `loads` as services of the 3.2 dialect import them."""

from __future__ import annotations

import json
from json import JSONDecodeError
from typing import Any

from arint import jsons

__all__ = ["JSONDecodeError", "dumps", "json_dumps", "json_loads", "loads"]


def dumps(value: Any, **options: Any) -> str:
    """A value as JSON text."""
    if options:
        options.setdefault("default", jsons._default)
        return json.dumps(value, **options)
    return jsons.dumps(value)


def loads(text: str | bytes, **options: Any) -> Any:
    """The value of a JSON text."""
    return json.loads(text, **options)


json_dumps = dumps
json_loads = loads
