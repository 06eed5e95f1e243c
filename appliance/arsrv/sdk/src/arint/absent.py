"""Parts of the 3.2 SDK that this release does not have.

Touching one raises at once, with one sentence that names it and what to do:
better than an AttributeError, and much better than a call that does nothing.
`docs/user/integrator/not-supported.md` has them all.
"""

from __future__ import annotations

import os
from typing import Any

from arint.errors import NotSupported

_LIBRARY = "use a Python library for it"
_BY_REST = "use the system's REST interface by `self.rest`, or its Python library"

#: What to do instead.
_INSTEAD = {
    "self.amqp": _LIBRARY,
    "self.audit": "what was done is in the audit log of the box",
    "self.cassandra_conn": _LIBRARY,
    "self.cassandra_query": _LIBRARY,
    "self.cloud": _BY_REST,
    "self.definition": "connections are reached by `self.out`",
    "self.email": "use `smtplib` or `imaplib` of the standard library",
    "self.im": _BY_REST,
    "self.invoke_by_id": "use `self.invoke` with the service's name",
    "self.keysight": _BY_REST,
    "self.odb": "use `self.outgoing.sql` with a connection of its own; the box's objects are changed by the admin API",
    "self.out.amqp": _LIBRARY,
    "self.out.def_kafka": _LIBRARY,
    "self.out.ftp": "use `ftplib` of the standard library",
    "self.out.hl7": "send messages by `self.rest`, or by `socket` of the standard library",
    "self.out.ibm_mq": _LIBRARY,
    "self.out.jms_wmq": _LIBRARY,
    "self.out.ldap": _LIBRARY,
    "self.out.mongodb": _LIBRARY,
    "self.out.odoo": "use `xmlrpc.client` of the standard library",
    "self.out.redis": "use `self.kvdb.conn`, or a client of `redis` for another server",
    "self.out.sap": _BY_REST,
    "self.out.sftp": _LIBRARY,
    "self.out.sms": _BY_REST,
    "self.out.vault": _BY_REST,
    "self.out.wmq": _LIBRARY,
    "self.out.wsx": _LIBRARY,
    "self.out.zmq": _LIBRARY,
    "self.publish": "use `self.invoke_async` for one receiver, or `self.patterns.parallel` for several",
    "self.pubsub": "use `self.invoke_async` for one receiver, or `self.patterns.parallel` for several",
    "self.request.amqp": "there are no AMQP channels",
    "self.request.hl7": "a channel with `data_format` hl7 gives the message as `self.request.raw_request`",
    "self.request.ibm_mq": "there are no IBM MQ channels",
    "self.request.wmq": "there are no IBM MQ channels",
    "self.schedule": "configure the job on the box, or use `self.patterns.invoke_retry`",
    "self.search": _BY_REST,
    "self.security": "a token belongs to the connection; configure it there",
    "self.slow_responses": "the figures of a service are in its status",
    "self.sms": _BY_REST,
    "self.sso": "users log in at an identity provider; check its tokens on the channel",
    "self.static_config": "keep static files in a module of the deployment or use `self.user_config`",
    "self.zmq": _LIBRARY,
}


def not_in_this_release(what: str) -> NotSupported:
    """The exception that says `what` is missing, and what to do."""
    instead = _INSTEAD.get(what, "leave it out")
    return NotSupported(
        f"`{what}` is not in this release of ARINT; {instead}; "
        "see the page `not-supported` of the integrator's guide"
    )


class Absent:
    """An attribute whose use raises `NotSupported`."""

    __slots__ = ("what",)

    def __init__(self, what: str) -> None:
        self.what = what

    def __get__(self, instance: Any, owner: Any) -> Any:
        if instance is None:
            return self
        raise not_in_this_release(self.what)


class Server:
    """`self.server`: the few things of it that make sense here."""

    def __init__(self, service: Any) -> None:
        self._service = service
        self.pid = os.getpid()

    @property
    def name(self) -> str:
        """The worker's name."""
        from arint import runtime

        there = runtime.maybe()
        return str(there.hello.get("worker") or "") if there is not None else ""

    @property
    def kvdb(self) -> Any:
        """The same as `self.kvdb`."""
        return self._service.kvdb

    @property
    def user_config(self) -> Any:
        """The same as `self.user_config`."""
        return self._service.user_config

    @property
    def fs_server_config(self) -> Any:
        """What the box has as user config `server`: what services read of 3.2's `server.conf` belongs there."""
        try:
            return self._service.user_config["server"]
        except KeyError:
            raise NotSupported(
                "`self.server.fs_server_config` is the user config `server`, which does not exist; put the values "
                "that services need into `server.ini`; see the page `not-supported` of the integrator's guide"
            ) from None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise not_in_this_release(f"self.server.{name}")
