"""`self.outgoing.sql` against real PostgreSQL and MariaDB: sessions, pools, restarts, and what goes wrong."""

from __future__ import annotations

from typing import Any, Callable, Iterator

import pytest
from databases import PASSWORD, MariaDB, PostgreSQL, free_port
from harness import Core

SOURCE = """
import time
from contextlib import closing
from sqlalchemy import exc, text
from arint import Service

class Put(Service):
    name = 'sql.put'
    def handle(self):
        with closing(self.outgoing.sql.get('db').session()) as session:
            session.execute(text('CREATE TABLE IF NOT EXISTS customer (id INTEGER, name VARCHAR(50), due NUMERIC(9, 2))'))
            session.execute(text('INSERT INTO customer VALUES (:id, :name, :due)'), self.request.input)
            session.commit()
            rows = session.execute(text('SELECT id, name, due FROM customer ORDER BY id')).fetchall()
            self.response.payload = [[row[0], row[1], str(row[2])] for row in rows]

class Roll(Service):
    name = 'sql.roll-back'
    def handle(self):
        with closing(self.outgoing.sql['db'].session()) as session:
            session.execute(text("DELETE FROM customer"))
            session.rollback()
            self.response.payload = {'left': session.execute(text('SELECT count(*) FROM customer')).scalar()}

class One(Service):
    name = 'sql.one'
    def handle(self):
        with closing(self.outgoing.sql.get('db').session()) as session:
            self.response.payload = {'one': session.execute(text('SELECT 1')).scalar()}

class Told(Service):
    name = 'sql.told'
    def handle(self):
        try:
            with closing(self.outgoing.sql.get('db').session()) as session:
                session.execute(text(self.request.raw_request or 'SELECT 1'))
            self.response.payload = 'well'
        except exc.OperationalError as e:
            self.response.payload = 'OperationalError: ' + str(e)
        except Exception as e:
            self.response.payload = type(e).__name__ + ': ' + str(e)

class Hold(Service):
    name = 'sql.hold'
    def handle(self):
        with closing(self.outgoing.sql.get('db').session()) as session:
            session.execute(text('SELECT 1'))
            time.sleep(self.request.input['seconds'])
            self.response.payload = 'held'
"""


@pytest.fixture(scope="module", params=[PostgreSQL, MariaDB], ids=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each of the servers."""
    running = request.param()
    yield running
    running.close()


class Side:
    """The core's side of SQL: addresses, and what workers report."""

    def __init__(self, url: str, **more: Any) -> None:
        self.document = {"url": url, "pool_size": 2, "ping_interval_s": 0, **more}
        self.reports: list[dict[str, Any]] = []
        self.check: list[str] = []

    def __call__(self, meta: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        if meta["op"] == "sql":
            return self.document, b""
        assert (meta["op"], meta["worker"]) == ("sql_report", "test-1")
        self.reports.append(meta["pools"]["db"])
        check, self.check = self.check, []
        return {"check": check}, b""

    def until(self, core: Core, what: str, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Waits for a report that fits."""
        seen = len(self.reports)
        core.wait(lambda: any(fits(report) for report in self.reports[seen:]), f"a report of {what}")
        return next(report for report in self.reports[seen:] if fits(report))


def start(deploy: Any, side: Side) -> Core:
    core: Core = deploy(hello={"respond": side}, sql_services=SOURCE)
    assert core.failed is None, core.failed
    return core


def test_sessions_commit_and_roll_back(server: Any, deploy: Any) -> None:
    """Through the driver that comes along, with a password that needs escaping."""
    core = start(deploy, Side(server.url()))
    rows = core.call("sql.put", {"id": 1, "name": "Żaneta", "due": "10.50"}).json()
    assert rows == [[1, "Żaneta", "10.50"]]
    assert core.call("sql.roll-back").json() == {"left": 1}


def test_a_restart_of_the_server_costs_nothing_after_it(server: Any, deploy: Any) -> None:
    """Connections that died in the pool are found out before a service gets them."""
    side = Side(server.url())
    core = start(deploy, side)
    assert core.call("sql.one").json() == {"one": 1}
    side.until(core, "an open connection", lambda report: report["open"] == 1 and report["fault"] is None)
    server.stop()
    told = core.call("sql.told").text
    assert told.startswith("OperationalError: outgoing connection `db` cannot connect to the database: "), told
    assert PASSWORD not in told and "SELECT" not in told
    down = side.until(core, "the fault", lambda report: report["fault"] is not None)
    assert down["fault"] == told.partition(": ")[2] and down["errors"] >= 1
    server.start()
    assert core.call("sql.one").json() == {"one": 1}
    side.until(core, "its end", lambda report: report["fault"] is None)


def test_a_full_pool_is_told_with_its_figures(server: Any, deploy: Any) -> None:
    """Who waits in vain is told why; the figures say so meanwhile."""
    side = Side(server.url(), pool_timeout_ms=1500)
    core = start(deploy, side)
    held = [core.begin("sql.hold", {"seconds": 4}) for _ in range(2)]
    side.until(core, "a full pool", lambda report: report["in_use"] == 2)
    waiting = core.begin("sql.told")
    side.until(core, "one that waits", lambda report: report["waiting"] == 1)
    told = core.end(waiting).text
    assert told == (
        "Exhausted: outgoing connection `db`: all 2 connections of this worker are in use, and none was given back "
        "within 1.5 s"
    )
    assert [core.end(ident).text for ident in held] == ["held", "held"]
    idle = side.until(core, "an idle pool", lambda report: report["in_use"] == 0)
    assert (idle["size"], idle["open"], idle["waiting"], idle["errors"]) == (2, 2, 0, 1)


def test_a_wrong_password_is_told_and_not_shown(server: Any, deploy: Any) -> None:
    """In the service's exception and in the report."""
    side = Side(server.url(password="wrong:secret"))
    core = start(deploy, side)
    told = core.call("sql.told").text
    assert told.startswith("OperationalError: outgoing connection `db` cannot connect to the database: "), told
    assert "crm" in told and "wrong" not in told
    assert "\n" not in told


def test_the_core_can_ask_for_a_check(server: Any, deploy: Any) -> None:
    """At any time, and regularly where that is configured."""
    side = Side(server.url())
    core = start(deploy, side)
    core.call("sql.one")
    first = side.until(core, "a report", lambda report: True)
    assert first["ping_ms"] is None
    side.check = ["db"]
    side.until(core, "the check", lambda report: report["ping_ms"] is not None)
    regular = Side(server.url(), ping_interval_s=1)
    core = start(deploy, regular)
    core.call("sql.one")
    regular.until(core, "a regular check", lambda report: report["ping_ms"] is not None)


def test_errors_of_statements_are_the_services_own(server: Any, deploy: Any) -> None:
    """They say nothing about the database's health."""
    side = Side(server.url())
    core = start(deploy, side)
    told = core.call("sql.told", "SELECT no_such_column", data_format="").text
    assert told.startswith(("ProgrammingError: ", "OperationalError: ")) and "no_such_column" in told
    report = side.until(core, "the error", lambda report: report["errors"] == 1)
    assert report["fault"] is None


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (
            "oracle+no_such_driver://x/y",
            "ZatoException: outgoing connection `db`: SQLAlchemy knows no engine `oracle+no_such_driver`",
        ),
        (
            "postgresql+psycopg2://x@127.0.0.1/y",
            "ZatoException: outgoing connection `db`: Python module `psycopg2`, which its engine needs, is missing; name "
            "it in the service's `requirements.txt`",
        ),
        (
            "nonsense",
            "ZatoException: outgoing connection `db`: its engine, host and database make no address",
        ),
    ],
)
def test_what_cannot_be_opened_is_told_in_one_sentence(url: str, told: str, deploy: Any) -> None:
    """Without the address, which may hold a password."""
    core = start(deploy, Side(url))
    assert core.call("sql.told").text == told


def test_a_server_that_is_not_there_is_told(deploy: Any) -> None:
    """For both drivers."""
    for engine in ("postgresql", "mysql"):
        core = start(deploy, Side(f"{engine}://crm:geheim@127.0.0.1:{free_port()}/crm"))
        told = core.call("sql.told").text
        assert told.startswith("OperationalError: outgoing connection `db` cannot connect to the database: "), told
        assert "geheim" not in told and "\n" not in told
