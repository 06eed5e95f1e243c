"""`self.outgoing.sql` against SQLite (rank 18)."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from harness import SERVICES, Core


@pytest.fixture
def billing(deploy: Any, tmp_path: Path) -> Core:
    """A worker, and a database that the core knows as `billing`."""
    path = tmp_path / "billing.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE invoice (id INTEGER PRIMARY KEY, customer_id INTEGER, total NUMERIC)")
    database.executemany("INSERT INTO invoice (customer_id, total) VALUES (?, ?)", [(1, 10.5), (1, 20), (2, 30)])
    database.commit()
    database.close()

    def respond(meta: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        if meta["op"] == "sql_report":
            return {}, b""
        assert meta["op"] == "sql"
        if meta["name"] != "billing":
            return {"error": {"type": "not-found", "message": "no such connection"}}, b""
        return {"url": f"sqlite:///{path}", "pool_size": 5}, b""

    core: Core = deploy(hello={"respond": respond}, billing=(SERVICES / "billing.py").read_text())
    assert core.failed is None, core.failed
    return core


def test_rows_become_repeated_output(billing: Core) -> None:
    """fetchall into payload[:]."""
    rows = [{"id": 1, "total": 10.5}, {"id": 2, "total": 20}]
    assert billing.call("billing.get-invoices", {"customer_id": 1}).json() == {"response": rows}


def test_a_session_commits(billing: Core) -> None:
    """And the engine is asked for once, not for each session."""
    result = billing.call("billing.add-invoice", {"customer_id": 3, "total": 12.5})
    assert (result.status, result.json()) == (201, {"total": "12.50"})
    rows = billing.call("billing.get-invoices", {"customer_id": 3}).json()
    assert rows == {"response": [{"id": 4, "total": 12.5}]}
    assert [meta["op"] for meta, _ in billing.requests].count("sql") == 1


def test_an_unknown_connection_is_a_key_error(billing: Core) -> None:
    """As a service sees it."""
    assert billing.call("billing.no-such-database").details == ["No database nothing"]
