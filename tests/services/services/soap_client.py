"""A client of SOAP channels: zeep (Debian's python3-zeep), run by the system's Python.

Reads what to do as JSON from standard input (address of the description, version, credentials, calls), and prints what
came of each call, one line of JSON each.
"""

import json
import sys

import requests
from zeep import Client, Settings
from zeep.exceptions import Fault
from zeep.helpers import serialize_object
from zeep.transports import Transport
from zeep.wsse.username import UsernameToken

ASKED = json.load(sys.stdin)


def client():
    """The client of the description that was asked for."""
    session = requests.Session()
    session.trust_env = False
    if "basic" in ASKED:
        session.auth = tuple(ASKED["basic"])
    wsse = None
    if "token" in ASKED:
        name, password, use_digest = ASKED["token"]
        wsse = UsernameToken(name, password, use_digest=use_digest)
    transport = Transport(session=session, timeout=60, operation_timeout=60)
    # Strict: what is not as described is an error.
    return Client(ASKED["wsdl"], transport=transport, wsse=wsse, settings=Settings(strict=True))


made = client()
port = next(name for service in made.wsdl.services.values() for name in service.ports if name.endswith(ASKED["version"]))
service = made.bind(next(iter(made.wsdl.services)), port)
for operation, arguments in ASKED["calls"]:
    try:
        answer = {"answer": serialize_object(service[operation](**arguments), dict)}
    except Fault as fault:
        detail = fault.detail
        answer = {
            "fault": fault.message,
            "code": fault.code,
            "cid": None if detail is None else detail.findtext("{urn:arint:fault}cid"),
        }
    print(json.dumps(answer, default=str), flush=True)
