"""`self.kvdb`, `self.cache` and `self.lock` against a real server (ranks 23, 25, 36)."""

from __future__ import annotations

from typing import Any

import pytest
from arint import frames
from harness import SERVICES, UNWATCHED, Core


@pytest.fixture
def core(deploy: Any, redis_socket: str) -> Core:
    """A worker that knows the key-value server."""
    kvdb = {"unix_socket_path": redis_socket, "username": None, "password": "s3cret"}
    running: Core = deploy(hello={"kvdb": kvdb}, unwatched=UNWATCHED, counters=(SERVICES / "counters.py").read_text())
    assert running.failed is None, running.failed
    import redis

    client = redis.Redis(unix_socket_path=redis_socket, password="s3cret")
    client.flushall()
    client.close()
    return running


def test_the_connection_is_a_redis_client_that_gives_text(core: Core) -> None:
    """Strings, hashes, lists, pipelines."""
    assert core.call("counters.count").json() == {
        "counter": "6",
        "people": {"ann": "admin"},
        "queue": ["b", "a"],
        "pipe": [6, "6"],
        "missing": None,
    }


def test_lua_programs_run_by_name(core: Core) -> None:
    """lua_container."""
    assert core.call("counters.lua").json() == [3, 7]


def test_a_command_that_blocks_lets_other_calls_run(core: Core) -> None:
    """The push that ends it comes later, through the same worker."""
    waiting = core.begin("counters.blocking")
    core.ping()
    core.call("counters.push")
    assert core.end(waiting).json() == ["signal", "go"]


def test_caches(core: Core) -> None:
    """Every way to get, set, expire and delete."""
    ann, anna = {"age": 30}, [1, 2]
    assert core.call("counters.caches").json() == {
        "get": ann,
        "missing": None,
        "default": "fallback",
        "other": "in default",
        "alias": "in default",
        "prefix": {"ann": ann, "anna": anna},
        "suffix": {"anna": anna},
        "regex": {"anna": anna},
        "contains": {"bob*": "text"},
        "not_contains": {"bob*": "text"},
        "all": {"ann": ann, "anna": anna},
        "any": {"bob*": "text"},
        "keys": ["ann", "anna", "bob*"],
        "details": [ann, True, 0.0],
        "expire": True,
        "expires": True,
        "set_by": ["ann", "anna"],
        "after": {"ann": "new", "anna": "new"},
        "delete": ["new", None, None],
        "delete_by": ["anna", "bob*"],
        "len": 0,
    }


def test_locks(core: Core) -> None:
    """Held, refused to others, released, and never released for somebody else."""
    assert core.call("counters.locks").json() == {
        "acquired": True,
        "token": True,
        "second": "lock `invoices` was held by another for all of 0.05 s",
        "after": None,
        "released a foreign lock": False,
        "foreign": "of another",
    }


def test_a_lock_keeps_others_out(core: Core) -> None:
    """Many calls read, add and write; none is lost."""
    calls = [core.begin("counters.held-twice") for _ in range(12)]
    assert sorted(int(core.end(ident).text) for ident in calls) == list(range(1, 13))


def test_a_worker_that_was_kept_warm_gets_its_database_later(deploy: Any, redis_socket: str) -> None:
    """CONFIG brings what HELLO did not know, and can take it away."""
    core = deploy(counters=(SERVICES / "counters.py").read_text())
    assert core.call("counters.push").status == 500
    kvdb = {"unix_socket_path": redis_socket, "username": None, "password": "s3cret"}
    core.send(frames.with_json(frames.CONFIG, 0, {"kvdb": kvdb}))
    assert core.call("counters.push").status == 200
    core.send(frames.with_json(frames.CONFIG, 0, {"kvdb": None}))
    assert core.call("counters.push").status == 500


def test_a_cursor_of_many_keys_is_followed_to_its_end(core: Core) -> None:
    """More keys than one scan gives."""
    assert core.call("counters.many-keys").json() == {"len": 2500, "deleted": 2500, "left": 0}


def test_without_a_database_the_sentence_says_so(deploy: Any) -> None:
    """HELLO's kvdb is null."""
    core = deploy(counters=(SERVICES / "counters.py").read_text())
    result = core.call("counters.no-kvdb")
    assert result.details == ["this worker has no key-value database; is `arkvd` switched on?"]
