"""`self.lock`: a lock that holds across workers and boxes.

The lock is a key with a token and an end: a holder that dies frees it by itself
when `ttl` is over.  It is released by comparing the token in a transaction, so
that a holder that was too slow does not release the next one's.
"""

from __future__ import annotations

import random
import secrets
import time
from typing import Any

from arint import runtime
from arint.errors import LockTimeout

_PREFIX = "arint:lock:"
_FIRST_WAIT_S = 0.005
_LONGEST_WAIT_S = 0.2


class Lock:
    """Used as a context manager; `acquire` and `release` are there for special cases."""

    def __init__(
        self,
        kvdb: Any,
        name: str,
        ttl: float | None = None,
        block: float | None = None,
        *,
        expires: float | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> None:
        self._kvdb = kvdb
        self.name = name
        # `expires` and `timeout` are what release 2.0 called them.
        self.ttl = float(ttl if ttl is not None else expires if expires is not None else 20)
        self.block = float(block if block is not None else timeout if timeout is not None else 10)
        self.token = ""

    @property
    def acquired(self) -> bool:
        """Whether this lock has been acquired and not released."""
        return bool(self.token)

    def acquire(self) -> bool:
        """Takes the lock; False if somebody else held it for all of `block` seconds."""
        token = secrets.token_hex(16)
        conn = self._kvdb.conn
        until = time.monotonic() + self.block
        wait = _FIRST_WAIT_S
        while not conn.set(_PREFIX + self.name, token, nx=True, px=max(1, int(self.ttl * 1000))):
            left = until - time.monotonic()
            if left <= 0:
                return False
            there = runtime.maybe()
            if there is not None:
                there.block()
            # Waiters must not ask in step.
            time.sleep(min(left, wait * random.uniform(0.5, 1.0)))
            if there is not None:
                there.unblock()
            wait = min(wait * 2, _LONGEST_WAIT_S)
        self.token = token
        return True

    def release(self) -> bool:
        """Gives the lock back; False if it had run out before."""
        import redis

        token, self.token = self.token, ""
        key = _PREFIX + self.name
        with self._kvdb.conn.pipeline() as transaction:
            while True:
                try:
                    transaction.watch(key)
                    if not token or transaction.get(key) != token:
                        transaction.unwatch()
                        return False
                    transaction.multi()
                    transaction.delete(key)
                    transaction.execute()
                    return True
                except redis.WatchError:
                    # The key changed in between; look again.
                    continue

    def __enter__(self) -> Lock:
        if not self.acquire():
            raise LockTimeout(None, f"lock `{self.name}` was held by another for all of {self.block:g} s")
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
