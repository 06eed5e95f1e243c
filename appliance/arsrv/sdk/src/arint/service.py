"""`Service`: what the classes of users derive from.

An instance lives for one request.  Nearly everything it offers is made on first
use, because a typical service touches three or four of these things.
"""

from __future__ import annotations

import logging
from typing import Any, Callable

from arint.absent import Absent
from arint.call import Call
from arint.lazy import lazy
from arint.request import Request
from arint.response import Response, SIOPayload
from bunch import Bunch

__all__ = ["Channel", "PubSubHook", "Service", "WSXHook"]


class Channel:
    """`self.channel`: what the request came through."""

    def __init__(self, item: dict[str, Any]) -> None:
        security = item.get("security") or {}
        self.id: Any = item.get("id")
        self.name: str = item.get("name") or ""
        #: `http-soap`, `invoke`, `scheduler` …
        self.type: str = item.get("type") or ""
        self.data_format: str = item.get("data_format") or ""
        self.is_internal = bool(item.get("is_internal"))
        self.match_target: str = item.get("match_target") or ""
        #: `id`, `name`, `type` and `username`; None each on an open channel.
        self.security = Bunch({key: security.get(key) for key in ("id", "name", "type", "username")})
        self.sec = self.security


class Service:
    """A service: derive from it, define `handle`, and set `self.response.payload`.

    Everything here may be used from `handle` and the hooks.  In `async def
    handle` the blocking parts raise; `self.aio` has their counterparts.
    """

    #: The service's name; unless given, made of the module's and the class's names.
    name: str = ""
    #: The correlation id of the request, 24 hexadecimal digits.
    cid: str = ""
    #: JSON Schema, a dict or JSON text, that the body must satisfy before anything else runs.
    schema: Any = None
    #: The services that this one may invoke, where the box is told to enforce it.
    invokes: Any = None
    #: A stdlib logger with the service's name; records carry the cid.
    logger: logging.Logger = logging.getLogger("arint.service")

    _call: Call
    _plan: Any = None

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    # What users define

    def handle(self) -> Any:
        """Does the work.  Its return value is ignored; the answer is `self.response.payload`."""
        raise NotImplementedError(f"service `{self.name}` has no `handle`")

    def accept(self) -> Any:
        """Falsy: the request is refused with status 400 and an empty body."""
        return True

    def before_handle(self) -> Any:
        """Called before input is validated; exceptions are logged and ignored."""

    def validate_input(self) -> Any:
        """Called before `handle`; exceptions are the answer."""

    def validate_output(self) -> Any:
        """Called after `handle`; exceptions are the answer."""

    def after_handle(self) -> Any:
        """Called after `validate_output`; exceptions are logged and ignored."""

    def finalize_handle(self) -> Any:
        """Called last; exceptions are the answer."""

    def before_job(self) -> Any:
        """Called before a scheduled run."""

    def before_one_time_job(self) -> Any:
        """Called before a job that runs once."""

    def before_interval_based_job(self) -> Any:
        """Called before a job that runs at intervals."""

    def before_cron_style_job(self) -> Any:
        """Called before a job with a cron definition."""

    def after_job(self) -> Any:
        """Called after a scheduled run."""

    def after_one_time_job(self) -> Any:
        """Called after a job that runs once."""

    def after_interval_based_job(self) -> Any:
        """Called after a job that runs at intervals."""

    def after_cron_style_job(self) -> Any:
        """Called after a job with a cron definition."""

    @staticmethod
    def before_add_to_store(logger: logging.Logger) -> Any:
        """Called on deployment; falsy: the service is not deployed."""
        return True

    @staticmethod
    def after_add_to_store(logger: logging.Logger) -> Any:
        """Called once the service is deployed."""

    # What came, what goes

    @lazy
    def request(self) -> Request:
        """What came in."""
        return Request(self._call)

    @lazy
    def response(self) -> Response:
        """What goes out."""
        return Response(self._plan)

    @lazy
    def environ(self) -> dict[str, Any]:
        """What the caller passed along beside the payload."""
        return self._call.environ or {}

    @lazy
    def channel(self) -> Channel:
        """What the request came through."""
        return Channel(self._call.channel_item)

    @lazy
    def chan(self) -> Channel:
        """The same as `channel`."""
        return self.channel

    @lazy
    def wsgi_environ(self) -> dict[str, Any]:
        """The request in WSGI's form."""
        return self.request.http._wsgi_environ

    @lazy
    def data_format(self) -> str:
        """The channel's data format."""
        return self._call.data_format

    @lazy
    def job_type(self) -> str:
        """`one_time`, `interval_based` or `cron_style` where the scheduler runs this."""
        return str(self.environ.get("job_type", ""))

    @lazy
    def in_reply_to(self) -> str | None:
        """The cid of the request that this one answers, if any."""
        value = self.environ.get("in_reply_to")
        return None if value is None else str(value)

    @lazy
    def impl_name(self) -> str:
        """The dotted name of the class."""
        return self.get_impl_name()

    # Calling out

    @lazy
    def out(self) -> Any:
        """Outgoing connections: `self.out.rest[name].conn`, `self.out.sql.get(name).session()`."""
        from arint.outgoing import Outgoing

        return Outgoing(self)

    @lazy
    def outgoing(self) -> Any:
        """The same as `out`."""
        return self.out

    @lazy
    def rest(self) -> Any:
        """`self.rest[name].get(...)`: outgoing REST connections that need no cid."""
        from arint.rest import Facade

        return Facade(self)

    @lazy
    def kvdb(self) -> Any:
        """The key-value database; `self.kvdb.conn` is a redis-py client."""
        from arint.kvdb import KVDB

        return KVDB()

    @lazy
    def cache(self) -> Any:
        """Caches: `self.cache.default`, `self.cache.get_cache('builtin', name)`."""
        from arint.cache import CacheAPI

        return CacheAPI(self.kvdb)

    @lazy
    def user_config(self) -> Bunch:
        """Users' configuration: `self.user_config.<file>.<section>.<key>`."""
        from arint.userconfig import user_config

        return user_config()

    @lazy
    def config(self) -> Bunch:
        """The same as `user_config`."""
        return self.user_config

    @lazy
    def time(self) -> Any:
        """The clock: `self.time.utcnow()`, `self.time.reformat(...)`."""
        from arint.clock import Clock

        return Clock()

    @lazy
    def crypto(self) -> Any:
        """Encryption, hashes and random secrets: `self.crypto.hash_secret(...)`."""
        from arint.crypto import Crypto

        return Crypto(self)

    @lazy
    def commands(self) -> Any:
        """Programs of the box: `self.commands.invoke('ls', timeout=5)`."""
        from arint.commands import Commands

        return Commands(self)

    @lazy
    def patterns(self) -> Any:
        """`self.patterns.fanout`, `.parallel` and `.invoke_retry`."""
        from arint.later import Patterns

        return Patterns(self)

    @lazy
    def wsx(self) -> Any:
        """Clients of WebSocket channels: `self.wsx.channel[name].broadcast(...)`."""
        from arint.wsx import WSX

        return WSX(self)

    @lazy
    def server(self) -> Any:
        """What is left of 3.2's server object: `name`, `pid`, `kvdb`, `user_config`, `fs_server_config`."""
        from arint.absent import Server

        return Server(self)

    @lazy
    def aio(self) -> Any:
        """Counterparts of blocking calls, for `async def handle`."""
        from arint.aio import Aio

        return Aio(self)

    def invoke(self, name: Any, payload: Any = "", *args: Any, **kwargs: Any) -> Any:
        """Invokes another service and returns what it answered.

        `name` is a service's name or class.  Keywords: `channel`, `data_format`,
        `serialize` (JSON text instead of a dict), `as_bunch`, `timeout` in
        seconds, `raise_timeout`, `cid`, `skip_response_elem`, `environ`; with no
        payload any other keywords become the payload.

        Raises `KeyError` for an unknown service, `Inactive` for one that is
        switched off, `TimeoutException`, and whatever the other service raised.
        """
        from arint.invoke import invoke

        return invoke(self, name, payload, *args, **kwargs)

    def invoke_async(
        self, name: Any, payload: Any = "", *args: Any, callback: Any = None, cid: str | None = None, **kwargs: Any
    ) -> str:
        """Starts another service and does not wait; returns the correlation id of that call.

        `callback` names a service, or several, that are given the answer, with
        the correlation id as `self.in_reply_to`; unless given, the service
        `<name>-async-callback` is, if there is one.

        Raises `KeyError` for an unknown service and `Inactive`.
        """
        from arint.later import invoke_async

        return invoke_async(self, name, payload, *args, callback=callback, cid=cid, **kwargs)

    def spawn(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Runs a function on a thread of its own, also after this service has answered.

        Gives an object with `join`, `get`, `ready` and `value`.  It ends with
        its worker: what must not be lost is for `invoke_async`.
        """
        from arint.spawning import spawn

        return spawn(self, function, *args, **kwargs)

    def run_in_thread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The same as `spawn`."""
        return self.spawn(function, *args, **kwargs)

    def translate(self, *args: Any, **kwargs: Any) -> Any:
        """The same as `self.kvdb.translate`."""
        return self.kvdb.translate(*args, **kwargs)

    def get_request_hash(self) -> str:
        """What tells requests apart that may share an answer: body, and parameters of path and query."""
        import hashlib

        call = self._call
        seen = [call.method or "", sorted(call.channel_params().items())]
        if call.body is None:
            seen.append(self.request.raw_request)
        from arint import jsons

        digest = hashlib.sha256(jsons.dumps(seen).encode("utf-8", "surrogatepass"))
        digest.update(call.body or b"")
        return digest.hexdigest()

    def lock(self, name: str | None = None, *args: Any, **kwargs: Any) -> Any:
        """A lock across all workers and boxes, as a context manager.

        `name` defaults to the service's; `ttl=20` seconds it is held at most,
        `block=10` seconds to wait for it.  Raises `LockTimeout`.
        """
        from arint.lock import Lock

        return Lock(self.kvdb, name or self.name, *args, **kwargs)

    def sleep(self, seconds: float = 1) -> None:
        """Waits; other requests go on meanwhile."""
        import time

        from arint import runtime

        there = runtime.maybe()
        if there is not None:
            there.block()
        time.sleep(seconds)
        if there is not None:
            there.unblock()

    def new_instance(self, name: Any, *_: Any, **__: Any) -> Any:
        """An instance of another service for this request, not invoked yet.

        Raises `KeyError` for an unknown service.
        """
        from arint.invoke import new_instance

        return new_instance(self, name)

    def log_input(self, user_msg: str = "") -> None:
        """Logs the request's payload."""
        payload = _masked(self.request.payload, self._plan.input)
        self.logger.info("%s%s", f"{user_msg} " if user_msg else "", _described(self, "input", payload))

    def log_output(self, user_msg: str = "") -> None:
        """Logs the response's payload."""
        payload = self.response.payload
        if isinstance(payload, SIOPayload):
            payload = payload.getvalue(serialize=False)
        payload = _masked(payload, self._plan.output)
        self.logger.info("%s%s", f"{user_msg} " if user_msg else "", _described(self, "output", payload))

    # Names

    @classmethod
    def get_name(cls) -> str:
        """The service's public name."""
        if "name" in cls.__dict__ and cls.name:
            return cls.name
        from arint.naming import default_name

        return default_name(cls.__module__, cls.__name__)

    @classmethod
    def get_impl_name(cls) -> str:
        """The dotted name of the class."""
        return f"{cls.__module__}.{cls.__name__}"

    # What this release does not have

    invoke_by_id = Absent("self.invoke_by_id")
    pubsub = Absent("self.pubsub")
    publish = Absent("self.publish")
    schedule = Absent("self.schedule")
    email = Absent("self.email")
    amqp = Absent("self.amqp")
    odb = Absent("self.odb")
    search = Absent("self.search")
    cloud = Absent("self.cloud")
    im = Absent("self.im")
    sms = Absent("self.sms")
    security = Absent("self.security")
    sso = Absent("self.sso")
    cassandra_conn = Absent("self.cassandra_conn")
    cassandra_query = Absent("self.cassandra_query")
    static_config = Absent("self.static_config")
    keysight = Absent("self.keysight")
    zmq = Absent("self.zmq")
    definition = Absent("self.definition")
    audit = Absent("self.audit")
    slow_responses = Absent("self.slow_responses")


def _described(service: Service, what: str, payload: Any) -> str:
    return f"{what} of `{service.name}`, cid {service.cid}: {payload!r}"


def _masked(payload: Any, declared: Any) -> Any:
    """A payload for the log: what is secret by declaration or by its name is not shown."""
    from arint import sio

    secret = sio.SECRETS | {elem.name for elem in getattr(declared, "elems", ()) if isinstance(elem, sio.Secret)}

    def masked(value: Any) -> Any:
        if not isinstance(value, dict) and hasattr(value, "to_dict"):
            value = value.to_dict()
        if isinstance(value, dict):
            return {key: "******" if key in secret and item else masked(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [masked(item) for item in value]
        return value

    return masked(payload)


class PubSubHook(Service):
    """Hooks of publish/subscribe.  Accepted so that modules load; not called in this release."""

    before_publish: Callable[..., Any] | None = None
    before_delivery: Callable[..., Any] | None = None
    on_outgoing_soap_invoke: Callable[..., Any] | None = None
    on_subscribed: Callable[..., Any] | None = None
    on_unsubscribed: Callable[..., Any] | None = None


class WSXHook(Service):
    """Is told of the clients of a WebSocket channel that come and go: the channel names it as its `hook_service`.

    `self.request.input.ctx` says who it is: `hook_type`, `pub_client_id`, `ext_client_id`, `ext_client_name`,
    `peer_address`, `connection_time`, `channel_name`.
    """

    on_connected: Callable[..., Any] | None = None
    on_disconnected: Callable[..., Any] | None = None
    #: Accepted so that modules load; not called in this release.
    on_pubsub_response: Callable[..., Any] | None = None
    on_vault_mount_point_needed: Callable[..., Any] | None = None

    def handle(self) -> None:
        """Calls the hook that the core asks for."""
        ctx = Bunch((self.request.payload or {}).get("ctx") or {})
        self.request.input = Bunch(ctx=ctx)
        hook = {"wsx_on_connected": self.on_connected, "wsx_on_disconnected": self.on_disconnected}.get(
            ctx.get("hook_type") or ""
        )
        if hook is not None:
            hook()
