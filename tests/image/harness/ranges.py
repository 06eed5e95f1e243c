"""A web server for bundles, as another box or an admin's machine would be: with ranges, and a count of what it sent.

It can also be as bad as real ones are: without ranges, or with a line that is lost in the middle.
"""

import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from harness.tools import run

#: Where every box serves the bundle that it installed last.
NEIGHBOURS = "/v1/system/update/bundle"


class Files(http.server.SimpleHTTPRequestHandler):
    """Files with ranges, as RAUC streams them; counts what it sent."""

    protocol_version = "HTTP/1.1"
    sent = 0
    #: Whether parts are given at all.
    ranges = True
    #: The line is lost once so many bytes were sent, and so many requests find it lost.
    cut_at: int | None = None
    drops = 0

    def is_lost(self) -> bool:
        """Whether the line is lost now."""
        kind = type(self)
        return kind.cut_at is not None and kind.sent >= kind.cut_at and kind.drops > 0

    def do_GET(self) -> None:
        """Answers whole files and single ranges."""
        if self.is_lost():
            type(self).drops -= 1
            self.close_connection = True
            return
        name = "/bundle.raucb" if self.path == NEIGHBOURS else self.path
        path = Path(self.translate_path(name))
        if not path.is_file():
            self.send_error(404)
            return
        size = path.stat().st_size
        first, last, code = 0, size - 1, 200
        wanted = self.headers.get("Range", "")
        if wanted.startswith("bytes=") and self.ranges:
            begin, _, end = wanted[6:].partition("-")
            first, last, code = int(begin), min(int(end or last), last), 206
        self.send_response(code)
        self.send_header("Content-Length", str(last - first + 1))
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if code == 206:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        if self.command == "HEAD":
            return
        with path.open("rb") as file:
            file.seek(first)
            left = last - first + 1
            while left:
                if self.is_lost():
                    self.close_connection = True
                    return
                piece = file.read(min(1 << 16, left))
                self.wfile.write(piece)
                type(self).sent += len(piece)
                left -= len(piece)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Quiet(http.server.ThreadingHTTPServer):
    """A server whose clients may go away in the middle."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Says nothing: a box that has seen enough closes its connection."""


@contextmanager
def serving(folder: Path, kind: type[Files], certificate: tuple[Path, Path] | None = None) -> Iterator[str]:
    """Serves a folder; gives the address as a box reaches it over its uplink."""
    server = Quiet(("127.0.0.1", 0), partial(kind, directory=str(folder)))
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"{'https' if certificate else 'http'}://10.0.2.2:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def own_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate that nobody signed, as boxes have, and its key."""
    certificate, key = folder / "server.crt", folder / "server.key"
    run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=neighbour",
         "-addext", "subjectAltName=IP:10.0.2.2", "-keyout", key, "-out", certificate])
    return certificate, key
