"""Names and constants that services import from here."""

from __future__ import annotations

from arint.errors import Inactive, TimeoutException, ZatoException

__all__ = ["CHANNEL", "DATA_FORMAT", "Inactive", "SCHEDULER", "TimeoutException", "ZATO_ERROR", "ZATO_OK", "ZatoException"]

ZATO_OK = "ZATO_OK"
ZATO_ERROR = "ZATO_ERROR"


class CHANNEL:
    """How a service was invoked: the values of `self.channel.type`."""

    AMQP = "amqp"
    HTTP_SOAP = "http-soap"
    INVOKE = "invoke"
    INVOKE_ASYNC = "invoke-async"
    PUBLISH = "publish"
    SCHEDULER = "scheduler"
    SERVICE = "service"
    STARTUP_SERVICE = "startup-service"
    WEB_SOCKET = "web-socket"


class DATA_FORMAT:
    """What a body is made of."""

    CSV = "csv"
    DICT = "dict"
    FORM_DATA = "form"
    HL7 = "hl7"
    JSON = "json"
    POST = "post"
    XML = "xml"


class SCHEDULER:
    """Words of the scheduler."""

    class JOB_TYPE:
        """The values of `self.job_type`."""

        CRON_STYLE = "cron_style"
        INTERVAL_BASED = "interval_based"
        ONE_TIME = "one_time"
