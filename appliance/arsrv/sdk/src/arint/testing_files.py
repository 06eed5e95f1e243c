"""The core's part of `self.out.files` where there is no core: a folder of the test's own."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

from arint import jsons

_Answer = tuple[dict[str, Any], bytes]

_KINDS = {
    errno.ENOENT: "file-not-found",
    errno.EEXIST: "file-exists",
    errno.ENOTDIR: "not-a-directory",
    errno.EISDIR: "is-a-directory",
    errno.ENOTEMPTY: "not-empty",
    errno.EACCES: "refused",
}
_PARTS = ".arint-parts"


def answer(folder: str | os.PathLike[str] | None, meta: dict[str, Any], body: bytes) -> _Answer:
    """Answers a REQUEST with `op` `files` (docs/worker-protocol.md)."""
    if folder is None:
        return _refused("not-found", f"`{meta['conn']}` is not declared in this test: use `arint.files[{meta['conn']!r}] = tmp_path`")
    try:
        return _carry_out(Path(folder), meta, body)
    except ValueError as err:
        return _refused("bad-request", str(err))
    except OSError as err:
        return _refused(_KINDS.get(err.errno or 0, "internal"), str(err))


def _refused(kind: str, message: str) -> _Answer:
    return {"error": {"type": kind, "message": message}}, b""


def _carry_out(root: Path, meta: dict[str, Any], body: bytes) -> _Answer:
    action = meta["action"]
    parts = root / _PARTS
    if action == "part":
        parts.mkdir(exist_ok=True)
        part = len(list(parts.iterdir())) if meta["part"] is None else meta["part"]
        with open(parts / str(part), "ab") as file:
            file.write(body)
        return {"part": part}, b""
    if action == "drop":
        (parts / str(meta["part"])).unlink(missing_ok=True)
        return {}, b""
    at = _inside(root, meta["path"])
    if action == "list":
        entries = [{"name": each.name, **_about(each)} for each in sorted(at.iterdir()) if each.name != _PARTS]
        return {}, jsons.dumps(entries).encode("utf-8")
    if action == "info":
        return _about(at), b""
    if action == "read":
        with open(at, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(meta["offset"])
            return {"size": size}, file.read(meta["length"])
    if action == "append":
        with open(at, "ab") as file:
            file.write(body)
    elif action == "delete":
        at.unlink()
    elif action == "create_directory":
        at.mkdir(parents=True, exist_ok=True)
    elif action == "delete_directory":
        if meta["recursive"]:
            shutil.rmtree(at)
        else:
            at.rmdir()
    else:
        to = _inside(root, meta["to"]) if action == "move" else at
        if meta["mode"] == "create" and to.exists():
            raise FileExistsError(errno.EEXIST, f"`{to.name}` is there already")
        if action == "write":
            to.write_bytes(body)
        elif action == "commit":
            (parts / str(meta["part"])).replace(to)
        else:
            at.replace(to)
    return {}, b""


def _inside(root: Path, path: str) -> Path:
    below = PurePosixPath(path)
    if below.is_absolute() or ".." in below.parts or _PARTS in below.parts[:1]:
        raise ValueError(f"`{path}` is no path in the folder: names joined by `/`, without `..`, were expected")
    return root / below


def _about(path: Path) -> dict[str, Any]:
    stat = path.stat()
    kind = "directory" if path.is_dir() else "file"
    return {"type": kind, "size": stat.st_size, "modified_ms": int(stat.st_mtime * 1000)}
