"""JSON, by the standard library's C code without its Python wrapping.

`json.loads` guesses encodings and `json.dumps` builds an encoder each time; on a
request of a few microseconds both show.  What is accepted and what comes out is
the same as with the standard library, except that output is compact, is UTF-8
rather than escaped, and knows dates, decimals, UUIDs, bytes, sets and whatever
has `to_dict`.
"""

from __future__ import annotations

import json
from json import encoder as _encoder
from json.decoder import JSONDecodeError
from json.scanner import make_scanner
from typing import Any

__all__ = ["JSONDecodeError", "dumps", "dumps_pretty", "loads"]

_scan: Any = make_scanner(json.JSONDecoder())  # type: ignore[arg-type]


def loads(text: str) -> Any:
    """The value of a JSON text; raises `JSONDecodeError`."""
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        return json.loads(text)
    if end != len(text):
        # White space around the document, or something behind it.
        return json.loads(text)
    return value


def _default(value: Any) -> Any:
    to_dict = getattr(value, "to_dict", None)
    if to_dict is not None and not isinstance(value, type):
        return to_dict()
    iso = getattr(value, "isoformat", None)
    if iso is not None:
        return iso()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8")
    if isinstance(value, (set, frozenset)):
        return list(value)
    kind = type(value)
    if kind.__module__ in ("decimal", "_decimal", "uuid", "_pydecimal"):
        return str(value)
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return {name: getattr(value, name) for name in value.__dataclass_fields__ if hasattr(value, name)}
    mapping = getattr(value, "_mapping", None)
    if mapping is not None:  # a row of SQLAlchemy
        return dict(mapping)
    raise TypeError(f"cannot write an object of type `{kind.__module__}.{kind.__qualname__}` as JSON")


_slow = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_default)


def _make_encode() -> Any:
    make = getattr(_encoder, "c_make_encoder", None)
    quote = getattr(_encoder, "c_encode_basestring", None)
    if make is None or quote is None:
        return None
    # No marker table: a value that contains itself ends in RecursionError.
    return make(None, _default, quote, None, ":", ",", False, False, True)


_encode: Any = _make_encode()


def dumps(value: object) -> str:
    """A value as compact JSON text; raises `TypeError` for what JSON has no form for."""
    if _encode is None:
        return _slow.encode(value)
    if type(value) is str:
        return _slow.encode(value)
    return "".join(_encode(value, 0))


def dumps_pretty(value: object) -> str:
    """A value as indented JSON text, for logs."""
    return json.dumps(value, ensure_ascii=False, indent=2, default=_default)
