"""The other side of the tests of pass-through channels, run by the system's Python.

Says what it got, answers piece by piece, breaks off, counts.  Its port is the first line it prints.
"""

import gzip
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

LOCK = threading.Lock()
SEEN: dict[str, int] = {}
PIECE = 64 * 1024


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format, *args):
        """Says nothing."""

    def pieces(self):
        """The body of the request, piece by piece."""
        self.is_read = True
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while length := int(self.rfile.readline(), 16):
                yield self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", 0))
        while left:
            piece = self.rfile.read(min(PIECE, left))
            if not piece:
                return
            left -= len(piece)
            yield piece

    def answer(self, status, body, headers=()):
        """Sends an answer whole, after the request."""
        if not self.is_read:
            list(self.pieces())
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def any(self):
        """Answers one request."""
        self.is_read = False
        parts = urlsplit(self.path)
        wish = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        with LOCK:
            SEEN[parts.path] = SEEN.get(parts.path, 0) + 1
            seen = SEEN[parts.path]
        match parts.path.strip("/").split("/"):
            case ["seen", *rest]:
                self.answer(200, json.dumps(SEEN.get("/" + "/".join(rest), 0)).encode())
            case ["status", status]:
                headers = [("Retry-After", "0")] if status == "503" else []
                self.answer(int(status), b"as you wished", headers)
            case ["headers"]:
                headers = [
                    ("Content-Type", "text/plain"), ("Connection", "X-Hop"), ("X-Hop", "1"), ("X-Other", "2"),
                    ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("ETag", '"one"'), ("X-Zato-CID", "mine"),
                    ("Access-Control-Allow-Origin", "*"),
                ]
                self.answer(200, b"text", headers)
            case ["gone", *_] if seen <= int(wish.get("times", 1000)):
                # Closes the connection instead of an answer.
                list(self.pieces())
                self.close_connection = True
            case ["gone", *_]:
                self.answer(200, b"there again")
            case ["half"]:
                # Promises more than it sends, and waits for its end.
                self.send_response(200)
                self.send_header("Content-Length", "1000000")
                self.end_headers()
                self.wfile.write(b"x" * 100_000)
                self.wfile.flush()
                threading.Event().wait()
            case ["silent"]:
                list(self.pieces())
                threading.Event().wait()
            case ["takes-nothing"]:
                threading.Event().wait()
            case ["both"]:
                # Answers each piece as it comes.
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for piece in self.pieces():
                    line = f"{len(piece)}\n".encode()
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                    self.wfile.flush()
                self.wfile.write(b"0\r\n\r\n")
            case ["large", length]:
                left = int(length)
                self.send_response(200)
                self.send_header("Content-Length", length)
                self.end_headers()
                while left:
                    piece = b"y" * min(PIECE, left)
                    left -= len(piece)
                    self.wfile.write(piece)
            case ["packed"]:
                self.answer(200, gzip.compress(b"text " * 1000), [("Content-Encoding", "gzip")])
            case ["json", *_]:
                self.answer(200, json.dumps({"n": seen}).encode(), [("Content-Type", "application/json")])
            case _:
                length, digest = 0, hashlib.sha256()
                start = b""
                for piece in self.pieces():
                    length += len(piece)
                    digest.update(piece)
                    start = (start + piece)[:100]
                document = {
                    "method": self.command,
                    "path": self.path,
                    "headers": [[name.lower(), value] for name, value in self.headers.items()],
                    "length": length,
                    "sum": digest.hexdigest(),
                    "start": start.decode("latin-1"),
                }
                self.answer(200, json.dumps(document).encode(), [("Content-Type", "application/json")])

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = any


class Server(ThreadingHTTPServer):
    """All connections."""

    def handle_error(self, request, client_address):
        """Says nothing of clients that go away: tests have them do so."""


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
