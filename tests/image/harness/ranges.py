"""A web server for bundles, as another box or an admin's machine would be: with ranges, and a count of what it sent."""

import http.server
from pathlib import Path


class Files(http.server.SimpleHTTPRequestHandler):
    """Files with ranges, as RAUC streams them; counts what it sent."""

    protocol_version = "HTTP/1.1"
    sent = 0

    def do_GET(self) -> None:
        """Answers whole files and single ranges."""
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        size = path.stat().st_size
        first, last, code = 0, size - 1, 200
        wanted = self.headers.get("Range", "")
        if wanted.startswith("bytes="):
            begin, _, end = wanted[6:].partition("-")
            first, last, code = int(begin), min(int(end or last), last), 206
        self.send_response(code)
        self.send_header("Content-Length", str(last - first + 1))
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
                piece = file.read(min(1 << 16, left))
                self.wfile.write(piece)
                type(self).sent += len(piece)
                left -= len(piece)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Says nothing."""
