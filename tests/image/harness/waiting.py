"""Waits for states, never for a time alone; every limit is scaled by `ARINT_PATIENCE`.

A box under software emulation on a busy machine is up to ten times slower than on a quiet one, so that
limits are generous, and a test that hangs says what it saw last.
"""

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def patience() -> float:
    """The factor on every time limit; 1 for two quiet cores."""
    return float(os.environ.get("ARINT_PATIENCE", "1"))


class Impatient(AssertionError):
    """Something did not come about in time."""


def wait_for(what: str, look: Callable[[], T | None], seconds: float, every: float = 0.5) -> T:
    """Calls `look` until it answers something true; exceptions of the network count as "not yet"."""
    limit = time.monotonic() + seconds * patience()
    last: object = "nothing yet"
    while True:
        try:
            seen = look()
            if seen:
                return seen
            last = seen
        except (OSError, EOFError) as err:
            last = f"{type(err).__name__}: {err}"
        if time.monotonic() > limit:
            raise Impatient(f"{what}: not within {seconds * patience():.0f} s; the last thing seen was: {last}")
        time.sleep(every)
