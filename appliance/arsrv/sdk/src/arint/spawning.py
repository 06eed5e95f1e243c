"""`self.spawn`: work that goes on after its service has answered.

It runs on a thread of the same worker.  A worker that is replaced waits a few
seconds for it and no longer: what must not be lost is for `self.invoke_async`.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from typing import Any, Callable

from arint import runtime

__all__ = ["Spawned", "spawn"]


class Spawned:
    """A function under way, with the methods that greenlets have."""

    def __init__(self) -> None:
        self._done = threading.Event()
        #: What the function returned, once it has.
        self.value: Any = None
        #: What it raised, if anything.
        self.exception: BaseException | None = None

    def ready(self) -> bool:
        """Whether it has ended."""
        return self._done.is_set()

    def successful(self) -> bool:
        """Whether it has ended without an exception."""
        return self.ready() and self.exception is None

    def join(self, timeout: float | None = None) -> None:
        """Waits for its end."""
        there = runtime.maybe()
        if there is not None:
            there.block()
        self._done.wait(timeout)
        if there is not None:
            there.unblock()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Waits for its end and gives what it returned, or raises what it raised; TimeoutError."""
        if block:
            self.join(timeout)
        if not self.ready():
            raise TimeoutError("the function has not ended yet")
        if self.exception is not None:
            raise self.exception
        return self.value


def spawn(service: Any, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Spawned:
    """Begins a function on a thread of its own; an exception that nobody asks for is in the log."""
    spawned = Spawned()
    context = contextvars.copy_context()
    context.run(runtime.current_call.set, getattr(service, "_call", None))
    logger: logging.Logger = service.logger
    there = runtime.maybe()
    if there is not None:
        there.spawned.add(spawned)

    def run() -> None:
        try:
            spawned.value = context.run(function, *args, **kwargs)
        except BaseException as exc:
            spawned.exception = exc
            logger.error("a spawned function failed: %s: %s", type(exc).__name__, exc, exc_info=exc)
        finally:
            spawned._done.set()
            if there is not None:
                there.spawned.discard(spawned)
                if there.draining:
                    there.leave_if_done()

    threading.Thread(target=run, name=f"spawned-{service.name}", daemon=True).start()
    return spawned
