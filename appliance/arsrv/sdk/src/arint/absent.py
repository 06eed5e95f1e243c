"""Parts of the 3.2 SDK that this release does not have.

Touching one raises at once, with one sentence that names it: better than an
AttributeError, and much better than a call that does nothing.
"""

from __future__ import annotations

from typing import Any

from arint.errors import NotSupported

#: What to do instead, where there is something.
_INSTEAD = {
    "self.static_config": "keep static files in a module of the deployment or use `self.user_config`",
    "self.odb": "use `self.outgoing.sql` with a connection of its own",
    "self.kvdb.translate": "use a hash in `self.kvdb.conn`",
    "self.commands": "use the standard library's `subprocess`",
    "self.spawn": "use the standard library's `threading` or `async def handle`",
    "self.run_in_thread": "use the standard library's `threading` or `async def handle`",
    "self.invoke_async": "use `self.invoke`, or `async def handle` with `self.aio.invoke`",
    "self.invoke_by_id": "use `self.invoke` with the service's name",
}


def not_in_this_release(what: str) -> NotSupported:
    """The exception that says `what` is missing."""
    instead = _INSTEAD.get(what)
    text = f"`{what}` is not in this release of ARINT"
    return NotSupported(f"{text}; {instead}" if instead else text)


class Absent:
    """An attribute whose use raises `NotSupported`."""

    __slots__ = ("what",)

    def __init__(self, what: str) -> None:
        self.what = what

    def __get__(self, instance: Any, owner: Any) -> Any:
        if instance is None:
            return self
        raise not_in_this_release(self.what)
