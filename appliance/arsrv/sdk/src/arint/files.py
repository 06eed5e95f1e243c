"""`self.out.files`: folders on the box.

The core opens the files; a path is relative to the connection's folder and
cannot lead out of it.  When a method that changes something returns, the change
is on disk, and a file that is written appears whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from typing import Any

from arint import jsons, runtime
from arint.errors import Inactive, ZatoException

__all__ = ["Connection", "Connections", "FileInfo"]

# As much as one answer of the core holds, and as one request takes.
_CHUNK = 8 * 1024 * 1024

_ERRORS: dict[str, type[OSError]] = {
    "file-not-found": FileNotFoundError,
    "file-exists": FileExistsError,
    "not-a-directory": NotADirectoryError,
    "is-a-directory": IsADirectoryError,
    "not-empty": OSError,
    "no-room": OSError,
    "too-large": OSError,
    "refused": PermissionError,
}


@dataclass(frozen=True)
class FileInfo:
    """A file or folder in a connection's folder."""

    #: Its name, without folders.
    name: str
    #: Its path within the connection's folder.
    path: str
    #: `file` or `directory`.
    type: str
    #: Bytes.
    size: int
    #: When it was last changed, in UTC.
    last_modified: datetime

    @property
    def is_file(self) -> bool:
        """Whether it is a file."""
        return self.type == "file"

    @property
    def is_directory(self) -> bool:
        """Whether it is a folder."""
        return self.type == "directory"


class Connections:
    """`self.out.files`, by `.get(name)` or `[name]`."""

    def __init__(self, service: Any) -> None:
        self._cid = service.cid

    def __getitem__(self, name: str) -> Connection:
        return Connection(name, self._cid)

    def get(self, name: str) -> Connection:
        """The connection of this name; raises when it is used and does not exist."""
        return Connection(name, self._cid)


class Connection:
    """A folder.

    Every method raises `KeyError` for an unknown connection, `Inactive` for one that is switched off, and an `OSError`
    of the kind that Python's own functions raise: `FileNotFoundError`, `FileExistsError`, `PermissionError` …
    """

    def __init__(self, name: str, cid: str) -> None:
        self.name = name
        self._cid = cid

    @property
    def conn(self) -> Connection:
        """The connection itself."""
        return self

    # Looking

    def list(self, path: str = "", pattern: str = "*") -> list[FileInfo]:
        """What is in a folder, by name; `pattern` is as in `fnmatch`.  At most 100,000 entries are in one folder."""
        _, body = self._ask({"action": "list", "path": path})
        prefix = path.strip("/") + "/" if path.strip("/") not in ("", ".") else ""
        entries = [_info(prefix, entry) for entry in jsons.loads(body.decode("utf-8"))]
        return [entry for entry in entries if fnmatchcase(entry.name, pattern)]

    def info(self, path: str) -> FileInfo:
        """What is known of a file or folder."""
        meta, _ = self._ask({"action": "info", "path": path})
        folder, slash, name = path.rstrip("/").rpartition("/")
        return _info(folder + slash, {"name": name, **meta})

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder of this path."""
        try:
            self.info(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    # Reading

    def read(self, path: str) -> bytes:
        """The whole of a file."""
        return b"".join(self.read_chunks(path))

    def read_text(self, path: str, encoding: str = "utf-8") -> str:
        """The whole of a file as text."""
        return self.read(path).decode(encoding)

    def read_chunks(self, path: str, size: int = _CHUNK) -> Iterator[bytes]:
        """A file in pieces of at most `size` bytes (8 MiB are the most), for what is larger than memory."""
        if size < 1:
            raise ValueError(f"`size` is {size}; 1 or more was expected")
        offset, size = 0, min(size, _CHUNK)
        while True:
            meta, piece = self._ask({"action": "read", "path": path, "offset": offset, "length": size})
            if piece:
                yield piece
            offset += len(piece)
            if not piece or offset >= meta["size"]:
                return

    # Writing

    def write(self, path: str, data: bytes | str | Iterator[bytes], overwrite: bool = True) -> None:
        """Writes a file, whole or not at all; text as UTF-8.

        `data` may be an iterator of pieces, for what is larger than memory.  The folder has to be there.
        `overwrite=False` raises `FileExistsError` where there is a file, also if another service is quicker.
        """
        mode = "replace" if overwrite else "create"
        if isinstance(data, str):
            data = data.encode("utf-8")
        if isinstance(data, bytes | bytearray | memoryview) and len(data) <= _CHUNK:
            self._ask({"action": "write", "path": path, "mode": mode}, bytes(data))
            return
        part: int | None = None
        try:
            for piece in _pieces(data):
                meta, _ = self._ask({"action": "part", "part": part}, piece)
                part = meta["part"]
            if part is None:
                self._ask({"action": "write", "path": path, "mode": mode}, b"")
            else:
                self._ask({"action": "commit", "part": part, "path": path, "mode": mode})
        except BaseException:
            if part is not None:
                self._ask({"action": "drop", "part": part})
            raise

    def append(self, path: str, data: bytes | str) -> None:
        """Writes at the end of a file, which is made where it is not there.

        Lines of several services do not mix as long as each is one call of at most 8 MiB.
        """
        for piece in _pieces(data.encode("utf-8") if isinstance(data, str) else data):
            self._ask({"action": "append", "path": path}, piece)

    def move(self, path: str, to: str, overwrite: bool = False) -> None:
        """Gives a file or folder another path; the folder it goes to has to be there."""
        mode = "replace" if overwrite else "create"
        self._ask({"action": "move", "path": path, "to": to, "mode": mode})

    def delete(self, path: str) -> None:
        """Removes a file."""
        self._ask({"action": "delete", "path": path})

    def create_directory(self, path: str) -> None:
        """Makes a folder and those above it; one that is there is fine."""
        self._ask({"action": "create_directory", "path": path})

    def delete_directory(self, path: str, recursive: bool = False) -> None:
        """Removes a folder; with `recursive` with all that is in it."""
        self._ask({"action": "delete_directory", "path": path, "recursive": recursive})

    def _ask(self, meta: dict[str, Any], body: bytes = b"") -> tuple[dict[str, Any], bytes]:
        there = runtime.get()
        meta, body = there.request({"op": "files", "conn": self.name, "cid": self._cid, **meta}, body)
        error = meta.get("error")
        if error is not None:
            raise _error(self._cid, self.name, error)
        return meta, body


def _pieces(data: Any) -> Iterator[bytes]:
    if isinstance(data, bytes | bytearray | memoryview):
        view = memoryview(data)
        for at in range(0, len(view), _CHUNK):
            yield bytes(view[at : at + _CHUNK])
        return
    for piece in data:
        yield from _pieces(piece)


def _info(prefix: str, entry: dict[str, Any]) -> FileInfo:
    modified = datetime.fromtimestamp((entry["modified_ms"] or 0) / 1000, timezone.utc)
    return FileInfo(entry["name"], prefix + entry["name"], entry["type"], entry["size"], modified)


def _error(cid: str, name: str, error: dict[str, Any]) -> Exception:
    kind, message = error.get("type"), error.get("message")
    if kind == "not-found":
        return KeyError(name)
    if kind == "inactive":
        return Inactive(name, cid)
    if kind == "bad-request":
        return ValueError(message)
    if kind in _ERRORS:
        return _ERRORS[kind](message)
    return ZatoException(cid, message)
