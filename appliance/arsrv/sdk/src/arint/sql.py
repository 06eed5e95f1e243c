"""`self.outgoing.sql`: SQLAlchemy sessions.

The core knows the address and its password; the pool of connections is this
worker's own, and this worker checks it.  An engine is kept per name and made
anew when the core's answer has changed.  Once a second a thread tells the core
how the pools are, and hears which of them somebody wants checked now.
"""

from __future__ import annotations

import importlib.util
import threading
import time
from typing import Any

from arint import runtime
from arint.errors import Inactive, TimeoutException, ZatoException

_ASK_AGAIN_S = 1.0
_REPORT_EVERY_S = 1.0
_CONNECT_TIMEOUT_S = 10

# What is taken where an engine names no driver: the first that is there.
_DRIVERS = {
    "postgresql": ("psycopg2", "psycopg", "pg8000"),
    "mysql": ("MySQLdb", "pymysql"),
    "mariadb": ("MySQLdb", "pymysql"),
}
# What an engine's driver is called, for those where the module is called otherwise.
_DRIVER_NAMES = {"MySQLdb": "mysqldb"}

_lock = threading.Lock()
_engines: dict[str, _Engine] = {}
_reporter: threading.Thread | None = None


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
        return self._entry().engine

    def session(self) -> Any:
        """A new SQLAlchemy session; close it, best by `with closing(...)`.

        Raises `KeyError` for an unknown connection and `Inactive` for one that
        is switched off.
        """
        return self._entry().factory()

    def ping(self, *_: Any) -> float:
        """Runs `SELECT 1`; returns the seconds it took."""
        return self._entry().ping()

    def _entry(self) -> _Engine:
        there = runtime.get()
        there.refuse_on_loop()
        entry = _engines.get(self.name)
        if entry is None or time.monotonic() - entry.asked > _ASK_AGAIN_S:
            entry = self._ask(there)
        # What the session does next is waiting for the database.
        there.block()
        return entry

    def _ask(self, there: runtime.Runtime) -> _Engine:
        meta, _ = there.request({"op": "sql", "name": self.name, "cid": self._cid})
        error = meta.get("error")
        if error is not None:
            raise sql_error(self._cid, self.name, error)
        with _lock:
            entry = _engines.get(self.name)
            if entry is None or entry.made_of != meta:
                old, entry = entry, _Engine(self.name, self._cid, meta)
                if old is not None:
                    # Sessions under way keep their connection.
                    old.engine.dispose()
                _engines[self.name] = entry
                _start_reporter(there)
            entry.asked = time.monotonic()
        return entry


class _Engine:
    """An engine with its pool and its figures."""

    def __init__(self, name: str, cid: str, made_of: dict[str, Any]) -> None:
        self.name = name
        self.made_of = made_of
        self.asked = time.monotonic()
        self.waiting = 0
        self.errors = 0
        # What the last connecting or checking found.
        self.fault: str | None = None
        self.checked_ms: int | None = None
        self.ping_ms: float | None = None
        self.checking = False
        self._next_check = time.monotonic() + float(made_of.get("ping_interval_s") or 0)
        self._figures = threading.Lock()
        self.engine, self.factory = self._make(cid)

    def _make(self, cid: str) -> tuple[Any, Any]:
        import sqlalchemy
        from sqlalchemy import event, orm

        size = int(self.made_of.get("pool_size") or 1)
        wait_s = float(self.made_of.get("pool_timeout_ms") or 30_000) / 1000
        options: dict[str, Any] = {"pool_pre_ping": True}
        try:
            url = _with_driver(sqlalchemy.make_url(self.made_of["url"]))
            if url.get_backend_name() != "sqlite" or url.database not in (None, "", ":memory:"):
                options.update(poolclass=_pool_class(self), pool_size=size, max_overflow=0, pool_timeout=wait_s)
            module = url.get_driver_name()
            if module in ("psycopg", "psycopg2", "pymysql", "mysqldb"):
                options["connect_args"] = {"connect_timeout": _CONNECT_TIMEOUT_S}
            engine = sqlalchemy.create_engine(url, **options)
        except ModuleNotFoundError as exc:
            raise ZatoException(
                cid,
                f"outgoing connection `{self.name}`: Python module `{exc.name}`, which its engine needs, is missing; "
                "name it in the service's `requirements.txt`",
            ) from None
        except sqlalchemy.exc.NoSuchModuleError:
            engine_name = self.made_of["url"].partition("://")[0]
            raise ZatoException(
                cid, f"outgoing connection `{self.name}`: SQLAlchemy knows no engine `{engine_name}`"
            ) from None
        except sqlalchemy.exc.ArgumentError:
            # Its text may hold the address with the password.
            raise ZatoException(
                cid, f"outgoing connection `{self.name}`: its engine, host and database make no address"
            ) from None
        event.listen(engine, "handle_error", self._note_error)
        event.listen(engine, "checkout", self._note_checkout)
        return engine, orm.sessionmaker(bind=engine)

    def _note_checkout(self, *_: Any) -> None:
        if self.fault is not None or self.checked_ms is None:
            self.found(None)

    def _note_error(self, context: Any) -> Any:
        with self._figures:
            self.errors += 1
        is_connecting = context.connection is None
        if not (is_connecting or context.is_disconnect) or context.is_pre_ping:
            # A matter between the service and its statements.
            return None
        failed = _unavailable(self.name, context)
        self.found(str(failed))
        return failed

    def found(self, fault: str | None, ping_ms: float | None = None) -> None:
        """Notes how the database is."""
        with self._figures:
            self.fault = fault
            self.checked_ms = int(time.time() * 1000)
            if ping_ms is not None:
                self.ping_ms = ping_ms

    def note_wait(self, change: int, is_error: bool = False) -> None:
        """One more or one fewer waits for a connection."""
        with self._figures:
            self.waiting += change
            self.errors += is_error

    def ping(self) -> float:
        """Runs `SELECT 1`; returns the seconds it took."""
        import sqlalchemy

        started = time.perf_counter()
        with self.engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT 1"))
        took = time.perf_counter() - started
        self.found(None, took * 1000)
        return took

    def check(self) -> None:
        """Checks it in a thread of its own: connecting to what is away takes as long as it takes."""
        with self._figures:
            if self.checking:
                return
            self.checking = True
            interval = float(self.made_of.get("ping_interval_s") or 0)
            self._next_check = time.monotonic() + interval

        def run() -> None:
            try:
                self.ping()
            except Exception as exc:
                self.found(str(exc) if isinstance(exc, _known_faults()) else f"{type(exc).__name__}: {exc}")
            finally:
                self.checking = False

        threading.Thread(target=run, name=f"sql-check-{self.name}", daemon=True).start()

    def is_due(self) -> bool:
        """Whether it should be checked by now."""
        return bool(self.made_of.get("ping_interval_s")) and time.monotonic() >= self._next_check

    def figures(self) -> dict[str, Any]:
        """For the core."""
        pool = self.engine.pool
        in_use = pool.checkedout() if hasattr(pool, "checkedout") else 0
        idle = pool.checkedin() if hasattr(pool, "checkedin") else 0
        size = pool.size() if hasattr(pool, "size") else 1
        with self._figures:
            return {
                "size": max(int(size), 0),
                "open": max(in_use + idle, 0),
                "in_use": max(in_use, 0),
                "waiting": max(self.waiting, 0),
                "errors": self.errors,
                "fault": self.fault,
                "checked_ms": self.checked_ms,
                "ping_ms": self.ping_ms,
            }


def _with_driver(url: Any) -> Any:
    """The address with a driver that is there, where the engine names none."""
    if "+" in url.drivername:
        return url
    backend = "postgresql" if url.drivername == "postgres" else url.drivername
    known = _DRIVERS.get(backend, ())
    for module in known:
        if importlib.util.find_spec(module) is not None:
            return url.set(drivername=f"{backend}+{_DRIVER_NAMES.get(module, module)}")
    return url.set(drivername=f"{backend}+{known[-1]}") if known else url


def _pool_class(entry: _Engine) -> Any:
    """A pool that tells who waits, and who waited in vain."""
    import sqlalchemy
    from sqlalchemy import pool

    class Exhausted(sqlalchemy.exc.TimeoutError):
        """No connection was given back in time."""

    class Pool(pool.QueuePool):
        def _do_get(self) -> Any:
            entry.note_wait(1)
            try:
                return super()._do_get()
            except sqlalchemy.exc.TimeoutError:
                entry.note_wait(0, is_error=True)
                raise Exhausted(
                    f"outgoing connection `{entry.name}`: all {self.size()} connections of this worker are in use, and "
                    f"none was given back within {self.timeout():g} s"
                ) from None
            finally:
                entry.note_wait(-1)

        def recreate(self) -> Any:
            return super().recreate()

    return Pool


def _known_faults() -> tuple[type[BaseException], ...]:
    import sqlalchemy

    return (sqlalchemy.exc.TimeoutError, sqlalchemy.exc.OperationalError)


def _unavailable(name: str, context: Any) -> Exception:
    """The database cannot be used: what services catch as `OperationalError`, told in one sentence."""
    import sqlalchemy

    class Unavailable(sqlalchemy.exc.OperationalError):
        """Says why in one sentence, without the statement and its values."""

        def __str__(self) -> str:
            return self.sentence

        sentence = ""

    original = context.original_exception
    what = "lost the database" if context.connection is not None else "cannot connect to the database"
    failed = Unavailable(None, None, original)
    failed.sentence = f"outgoing connection `{name}` {what}: {_reason(original)}"
    failed.args = (failed.sentence,)
    failed.connection_invalidated = context.is_disconnect
    return failed


def _reason(exc: BaseException) -> str:
    """What a driver says, in one line."""
    args = exc.args
    if args and isinstance(args[0], dict):
        # pg8000 hands on the server's fields.
        text = str(args[0].get("M") or args[0])
    elif len(args) >= 2 and isinstance(args[0], int):
        text = str(args[1])
    else:
        text = str(exc)
    return " ".join(text.split()) or type(exc).__name__


def _start_reporter(there: runtime.Runtime) -> None:
    global _reporter
    if _reporter is None:
        _reporter = threading.Thread(target=_report, args=(there,), name="sql-reporter", daemon=True)
        _reporter.start()


def _report(there: runtime.Runtime) -> None:
    while True:
        time.sleep(_REPORT_EVERY_S)
        engines = list(_engines.values())
        for entry in engines:
            if entry.is_due():
                entry.check()
        pools = {entry.name: entry.figures() for entry in engines}
        meta, _ = there.request({"op": "sql_report", "worker": there.hello.get("worker"), "pools": pools})
        for name in meta.get("check") or ():
            wanted = _engines.get(name)
            if wanted is not None:
                wanted.check()
        for name in meta.get("gone") or ():
            with _lock:
                gone = _engines.pop(name, None)
            if gone is not None:
                gone.engine.dispose()


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
