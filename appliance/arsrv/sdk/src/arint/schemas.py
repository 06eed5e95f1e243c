"""`schema = {...}` on a service: JSON Schema that a request must satisfy before anything else runs.

The schema is compiled when the service is deployed, by `fastjsonschema` (drafts
4, 6 and 7), which makes Python code of it.
"""

from __future__ import annotations

from typing import Any

from arint import jsons
from arint.errors import BadRequest

__all__ = ["Schema"]


def _refuse(uri: str) -> Any:
    raise ValueError(f"it refers to `{uri}`; a schema has to hold everything itself")


class Schema:
    """A compiled schema."""

    def __init__(self, declared: Any) -> None:
        try:
            import fastjsonschema  # type: ignore[import-untyped,unused-ignore]
        except ImportError:
            raise ValueError(
                "its `schema` needs the package `fastjsonschema`, which this box's Python lacks "
                "(Debian package python3-fastjsonschema)"
            ) from None
        if isinstance(declared, (bytes, str)):
            text = declared.decode("utf-8") if isinstance(declared, bytes) else declared
            if not text.lstrip().startswith("{"):
                raise ValueError(
                    f"its `schema` is the path `{text}`, but services have no files beside them; "
                    "make the schema a dict, or JSON text"
                )
            declared = jsons.loads(text)
        if not isinstance(declared, dict):
            raise ValueError(f"its `schema` is {declared!r} and not a dict")
        self.document: dict[str, Any] = declared
        self._error: Any = fastjsonschema.JsonSchemaValueException
        try:
            self._validate = fastjsonschema.compile(
                declared, handlers={"http": _refuse, "https": _refuse, "file": _refuse}, use_default=False
            )
        except (fastjsonschema.JsonSchemaDefinitionException, ValueError, TypeError) as exc:
            raise ValueError(f"its `schema` is none: {exc}") from None

    def check(self, call: Any) -> None:
        """Raises BadRequest whose details say which element does not fit, and why."""
        try:
            self._validate(call.parsed if call.parsed != "" else None)
        except self._error as exc:
            path = "/" + "/".join(str(part) for part in exc.path[1:])
            message = exc.message.removeprefix(f"{exc.name} ")
            raise BadRequest(call.cid, f"element `{path}` {message}", True) from None
