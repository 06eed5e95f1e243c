"""`self.kvdb`: the key-value database, through redis-py.

One client serves the whole worker; it keeps a pool of connections of its own.
Values come back as text (`decode_responses`), as services of the 3.2 dialect
expect.
"""

from __future__ import annotations

import threading
from typing import Any

from arint import runtime
from arint.errors import ZatoException

_lock = threading.Lock()
_client: Any = None
_scripts: dict[str, str] = {}


def client() -> Any:
    """The worker's redis-py client, made on first use."""
    global _client
    if _client is None:
        with _lock:
            if _client is None:
                _client = _make(runtime.get().hello.get("kvdb"))
    return _client


def forget() -> None:
    """Makes the next use connect anew; commands under way keep their connection."""
    global _client
    with _lock:
        _client = None


def _make(config: dict[str, Any] | None) -> Any:
    if not config:
        raise ZatoException(None, "this worker has no key-value database; is `arkvd` switched on?")
    import redis
    from redis.client import Pipeline, PubSub

    class HandingOverPipeline(Pipeline):
        """Gives the lead away before it waits."""

        def execute(self, *args: Any, **kwargs: Any) -> Any:
            return _waiting(super().execute, *args, **kwargs)

        def immediate_execute_command(self, *args: Any, **kwargs: Any) -> Any:
            return _waiting(super().immediate_execute_command, *args, **kwargs)

    class HandingOverPubSub(PubSub):
        """Gives the lead away before it waits."""

        def parse_response(self, *args: Any, **kwargs: Any) -> Any:
            return _waiting(super().parse_response, *args, **kwargs)

    class HandingOver(redis.Redis):
        """Gives the lead away before it waits."""

        def execute_command(self, *args: Any, **kwargs: Any) -> Any:
            return _waiting(super().execute_command, *args, **kwargs)

        def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
            return HandingOverPipeline(
                self.connection_pool, self.response_callbacks, transaction, shard_hint
            )

        def pubsub(self, **kwargs: Any) -> Any:
            return HandingOverPubSub(self.connection_pool, **kwargs)

    options: dict[str, Any] = {
        "username": config.get("username"),
        "password": config.get("password"),
        "decode_responses": True,
        # The plain protocol, and no introduction by name and version.
        "protocol": 2,
        "driver_info": None,
        # Every thread of the worker may hold one.
        "max_connections": 2048,
    }
    if config.get("unix_socket_path"):
        options["unix_socket_path"] = config["unix_socket_path"]
    else:
        options["host"] = config.get("host", "localhost")
        options["port"] = int(config.get("port", 6379))
    return HandingOver(**options)


def _waiting(step: Any, *args: Any, **kwargs: Any) -> Any:
    there = runtime.get()
    there.block()
    try:
        return step(*args, **kwargs)
    finally:
        there.unblock()


class KVDB:
    """`self.kvdb`."""

    @property
    def conn(self) -> Any:
        """A redis-py client; `self.kvdb.conn.get('key')` gives text."""
        there = runtime.maybe()
        if there is not None:
            there.refuse_on_loop()
        return client()

    @property
    def lua_container(self) -> LuaContainer:
        """Lua programs by name."""
        return LuaContainer()

    def translate(
        self, system1: str, key1: str, value1: str, system2: str, key2: str, default: Any = ""
    ) -> Any:
        """What a value of one system is called in another, from the data dictionary that 3.2 keeps in Redis."""
        parts = ("zato:kvdb:data-dict:translation", system1, key1, value1, system2, key2)
        return self.conn.hget(":::".join(parts), "value2") or default


class LuaContainer:
    """Lua programs, kept under names for the whole worker."""

    def add_lua_program(self, name: str, program: str) -> None:
        """Registers a program under a name, in place of an earlier one."""
        _scripts[name] = program

    def run_lua(self, name: str, keys: Any = (), args: Any = ()) -> Any:
        """Runs a program by its name; raises `KeyError` where it is not registered."""
        there = client()
        # EVALSHA, and EVAL where the server does not know the program yet.
        return there.register_script(_scripts[name])(keys=list(keys), args=list(args))
