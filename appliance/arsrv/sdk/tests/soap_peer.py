"""A SOAP 1.1 server made of spyne: prints its port, and serves until its stdin ends.

`say(name, times)` repeats a greeting, `fail()` answers with a fault, `who()` tells the user of the WS-Security
UsernameToken and whether its digest is right.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import socketserver
import sys
import threading
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from spyne import Application, Fault, Integer, Iterable, Service, Unicode, rpc
from spyne.protocol.soap import Soap11
from spyne.server.wsgi import WsgiApplication

PASSWORD = "geheim&<"
WSSE = "{http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd}"
WSU = "{http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd}"

logging.disable(logging.CRITICAL)


class Greeter(Service):  # type: ignore[misc]
    @rpc(Unicode, Integer, _returns=Iterable(Unicode))
    def say(ctx, name, times):  # type: ignore[no-untyped-def] # noqa: N805
        return [f"hello {name}"] * (times or 1)

    @rpc(_returns=Unicode)
    def fail(ctx):  # type: ignore[no-untyped-def] # noqa: N805
        raise Fault("Client.NoSuch", "there is no such customer")

    @rpc(_returns=Unicode)
    def who(ctx):  # type: ignore[no-untyped-def] # noqa: N805
        envelope = ctx.in_document
        token = envelope.find(f".//{WSSE}UsernameToken")
        if token is None:
            return "nobody"
        user, password = token.findtext(f"{WSSE}Username"), token.find(f"{WSSE}Password")
        nonce, created = token.findtext(f"{WSSE}Nonce"), token.findtext(f"{WSU}Created")
        expected = PASSWORD
        if password.get("Type", "").endswith("#PasswordDigest"):
            digest = hashlib.sha1(base64.b64decode(nonce) + created.encode() + PASSWORD.encode())
            expected = base64.b64encode(digest.digest()).decode()
            user += " by digest"
        return user if password.text == expected else "an impostor"


class Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    application = Application([Greeter], tns="urn:greeter", in_protocol=Soap11(validator="lxml"), out_protocol=Soap11())
    server = make_server("127.0.0.1", 0, WsgiApplication(application), Server, Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


main()
