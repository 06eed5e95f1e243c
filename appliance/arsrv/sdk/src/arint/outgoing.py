"""`self.out` and `self.outgoing`: connections to other systems."""

from __future__ import annotations

from typing import Any

from arint.absent import Absent
from arint.lazy import lazy


class Outgoing:
    """REST, SOAP and SQL connections, and folders; the other kinds raise that this release does not have them."""

    def __init__(self, service: Any) -> None:
        self._service = service

    @lazy
    def rest(self) -> Any:
        """REST connections by name."""
        from arint.rest import Connections

        return Connections(self._service)

    @lazy
    def plain_http(self) -> Any:
        """The same as `rest`."""
        return self.rest

    @lazy
    def sql(self) -> Any:
        """SQL connections by name."""
        from arint.sql import Connections

        return Connections(self._service)

    @lazy
    def soap(self) -> Any:
        """SOAP connections by name."""
        from arint.soap import Connections

        return Connections(self._service)

    @lazy
    def files(self) -> Any:
        """Folders on the box by name."""
        from arint.files import Connections

        return Connections(self._service)

    amqp = Absent("self.out.amqp")
    ftp = Absent("self.out.ftp")
    sftp = Absent("self.out.sftp")
    odoo = Absent("self.out.odoo")
    sap = Absent("self.out.sap")
    ldap = Absent("self.out.ldap")
    mongodb = Absent("self.out.mongodb")
    redis = Absent("self.out.redis")
    zmq = Absent("self.out.zmq")
    wsx = Absent("self.out.wsx")
    vault = Absent("self.out.vault")
    sms = Absent("self.out.sms")
    hl7 = Absent("self.out.hl7")
    def_kafka = Absent("self.out.def_kafka")
    ibm_mq = Absent("self.out.ibm_mq")
    jms_wmq = Absent("self.out.jms_wmq")
    wmq = Absent("self.out.wmq")
