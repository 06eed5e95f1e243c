"""A dict whose keys are also attributes.

A small implementation of its own, because services of the 3.2 dialect import
`bunch` and the package of that name in the public index is not fit for
Python 3.  Attribute access falls through to the dict's methods first:
`bunch.items` is the method, `bunch["items"]` the key.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Bunch", "bunchify", "unbunchify"]


class Bunch(dict[str, Any]):
    """A dict with attribute access; a missing attribute raises AttributeError."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __repr__(self) -> str:
        items = ", ".join(f"{key}={value!r}" for key, value in self.items())
        return f"{type(self).__name__}({items})"

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(key for key in self if isinstance(key, str))]

    def __getstate__(self) -> None:
        return None

    def __reduce__(self) -> Any:
        return type(self), (dict(self),)

    def copy(self) -> Bunch:
        """A shallow copy, a Bunch again."""
        return type(self)(self)

    def toDict(self) -> dict[str, Any]:  # noqa: N802 - the name the public package has
        """The same as `unbunchify(self)`."""
        plain: dict[str, Any] = unbunchify(self)
        return plain

    @classmethod
    def fromDict(cls, value: dict[str, Any]) -> Bunch:  # noqa: N802
        """The same as `bunchify(value)`."""
        made: Bunch = bunchify(value)
        return made


def bunchify(value: Any) -> Any:
    """A deep copy in which every dict is a Bunch; lists and tuples are followed."""
    if isinstance(value, dict):
        return Bunch((key, bunchify(item)) for key, item in value.items())
    if isinstance(value, list):
        return [bunchify(item) for item in value]
    if type(value) is tuple:
        return tuple(bunchify(item) for item in value)
    return value


def unbunchify(value: Any) -> Any:
    """A deep copy in which every Bunch is a plain dict."""
    if isinstance(value, dict):
        return {key: unbunchify(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unbunchify(item) for item in value]
    if type(value) is tuple:
        return tuple(unbunchify(item) for item in value)
    return value
