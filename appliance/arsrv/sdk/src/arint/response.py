"""`self.response`: what goes out."""

from __future__ import annotations

from typing import Any

from arint.lazy import lazy
from bunch import Bunch

__all__ = ["OpenPayload", "Response", "SIOPayload"]


class OpenPayload(Bunch):
    """The payload nobody has set yet, where no output is declared.

    It is empty and equal to an empty text, as in the 3.2 dialect; assigning to
    attributes, as deep as wanted, makes it a JSON object.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            value = self[name] = OpenPayload()
            return value

    def __eq__(self, other: object) -> bool:
        if other == "":
            return not self
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: Any) -> Any:
        return "" + other if isinstance(other, str) else NotImplemented


class SIOPayload:
    """The payload where SimpleIO output is declared.

    `payload.name = value` sets an element; `payload[:] = rows` and
    `payload.append(row)` make the output a list.
    """

    __slots__ = ("_values", "_rows", "_output")

    _values: dict[str, Any]
    _rows: list[Any] | None
    _output: Any

    def __init__(self, output: Any) -> None:
        object.__setattr__(self, "_values", {})
        object.__setattr__(self, "_rows", [] if output.is_repeated else None)
        object.__setattr__(self, "_output", output)

    def __setattr__(self, name: str, value: Any) -> None:
        self._output.check_name(name)
        self._values[name] = value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self._output.check_name(name)
        return self._values.get(name, "")

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(key, slice):
            rows = self._list()
            rows[key] = value
        elif isinstance(key, int):
            self._list()[key] = value
        else:
            self.__setattr__(key, value)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, (int, slice)):
            return self._list()[key]
        return self._values[key]

    def __len__(self) -> int:
        return len(self._rows) if self._rows is not None else len(self._values)

    def __iter__(self) -> Any:
        return iter(self._rows if self._rows is not None else self._values)

    def append(self, row: Any) -> None:
        """Adds one row to the output list."""
        self._list().append(row)

    def extend(self, rows: Any) -> None:
        """Adds rows to the output list."""
        self._list().extend(rows)

    def set(self, value: Any) -> None:
        """Takes the elements of a dict or an object."""
        self._values.update(self._output.values_of(value))

    def getvalue(self, serialize: bool = True, **_: Any) -> Any:
        """The output as declared: JSON text, or a dict or list when `serialize` is false."""
        value = self._output.write(self._rows if self._rows is not None else self._values)
        if serialize:
            from arint import jsons

            return jsons.dumps(value)
        return value

    def _list(self) -> list[Any]:
        if self._rows is None:
            object.__setattr__(self, "_rows", [])
        assert self._rows is not None
        return self._rows


class Response:
    """`self.response`."""

    #: The HTTP status; 200 unless set.
    status_code: Any = 200
    content_encoding: str | None = None
    status_message = "OK"
    result: Any = "ZATO_OK"
    result_details: Any = ""

    def __init__(self, plan: Any) -> None:
        self._plan = plan

    @lazy
    def payload(self) -> Any:
        """What to answer: text, bytes, dict, list, Model, or by attribute."""
        output = self._plan.output
        if output is not None and output.is_sio:
            return SIOPayload(output)
        return OpenPayload()

    @lazy
    def headers(self) -> dict[str, Any]:
        """Headers to send, also when the service fails afterwards; a list is sent as several headers."""
        return {}

    @property
    def content_type(self) -> str:
        """The content type; unless set, JSON for channels with `data_format` json, else plain text."""
        return str(self.__dict__.get("content_type") or "text/plain")

    @content_type.setter
    def content_type(self, value: str | None) -> None:
        self.__dict__["content_type"] = value
