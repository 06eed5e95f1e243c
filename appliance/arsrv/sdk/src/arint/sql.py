"""`self.outgoing.sql`: SQLAlchemy sessions.

The core knows the address and its password; the pool of connections is this
worker's own.  An engine is kept per name and made anew when the core's answer
has changed.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from arint import runtime
from arint.errors import Inactive, TimeoutException, ZatoException

_ASK_AGAIN_S = 1.0

_lock = threading.Lock()
# name: (url, pool size, engine, session factory, when asked)
_engines: dict[str, tuple[str, int, Any, Any, float]] = {}


class Connections:
    """`self.outgoing.sql`, by `.get(name)` or `[name]`."""

    def __init__(self, service: Any) -> None:
        self._cid = service.cid

    def __getitem__(self, name: str) -> Connection:
        return Connection(name, self._cid)

    def get(self, name: str, enforce_is_active: bool = True) -> Connection:
        """The connection of this name; raises when it is used and does not exist."""
        return Connection(name, self._cid)


class Connection:
    """One SQL connection."""

    def __init__(self, name: str, cid: str) -> None:
        self.name = name
        self._cid = cid

    @property
    def conn(self) -> Connection:
        """The connection itself."""
        return self

    @property
    def pool(self) -> Connection:
        """The connection itself; its `engine` is SQLAlchemy's."""
        return self

    @property
    def engine(self) -> Any:
        """The SQLAlchemy engine."""
        return self._entry()[2]

    def session(self) -> Any:
        """A new SQLAlchemy session; close it, best by `with closing(...)`.

        Raises `KeyError` for an unknown connection and `Inactive` for one that
        is switched off.
        """
        return self._entry()[3]()

    def ping(self, *_: Any) -> float:
        """Runs `SELECT 1`; returns the seconds it took."""
        import sqlalchemy

        started = time.perf_counter()
        with self.engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT 1"))
        return time.perf_counter() - started

    def _entry(self) -> tuple[str, int, Any, Any, float]:
        there = runtime.get()
        there.refuse_on_loop()
        entry = _engines.get(self.name)
        if entry is None or time.monotonic() - entry[4] > _ASK_AGAIN_S:
            entry = self._ask(there)
        # What the session does next is waiting for the database.
        there.block()
        return entry

    def _ask(self, there: runtime.Runtime) -> tuple[str, int, Any, Any, float]:
        meta, _ = there.request({"op": "sql", "name": self.name, "cid": self._cid})
        error = meta.get("error")
        if error is not None:
            raise sql_error(self._cid, self.name, error)
        url, size = meta["url"], int(meta.get("pool_size") or 1)
        with _lock:
            old = _engines.get(self.name)
            if old is None or old[:2] != (url, size):
                engine, factory = _make(url, size)
                entry = (url, size, engine, factory, time.monotonic())
                if old is not None:
                    # Sessions under way keep their connection.
                    old[2].dispose()
            else:
                entry = (*old[:4], time.monotonic())
            _engines[self.name] = entry
        return entry


def _make(url: str, size: int) -> tuple[Any, Any]:
    import sqlalchemy
    from sqlalchemy import orm

    options: dict[str, Any] = {"pool_pre_ping": True}
    if not url.startswith("sqlite"):
        options.update(pool_size=size, max_overflow=0)
    engine = sqlalchemy.create_engine(url, **options)
    return engine, orm.sessionmaker(bind=engine)


def sql_error(cid: str, name: str, error: dict[str, Any]) -> Exception:
    """The exception for what the core says of an SQL connection."""
    kind = error.get("type")
    if kind == "not-found":
        return KeyError(name)
    if kind == "inactive":
        return Inactive(name, cid)
    if kind == "timeout":
        return TimeoutException(cid, error.get("message"))
    return ZatoException(cid, error.get("message"))
