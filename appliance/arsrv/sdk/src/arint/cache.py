"""`self.cache`: values that several services share for a while.

Caches live in the key-value database, so all workers see the same.  Values are
stored as JSON: what goes in as a tuple comes out as a list.
"""

from __future__ import annotations

import re
from typing import Any, Callable, Iterable

from arint import jsons
from arint.errors import NotSupported

_PREFIX = "arint:cache:"
_GLOB = re.compile(r"([\\*?\[\]])")
_AT_ONCE = 500

Match = Callable[[str], bool]


class Entry:
    """A cached value with its details."""

    def __init__(self, key: str, value: Any, expires_in: float | None) -> None:
        self.key = key
        self.value = value
        #: Seconds until it is gone; None if it stays.
        self.expires_in = expires_in

    @property
    def expiry(self) -> float:
        """Seconds until it is gone; 0 if it stays."""
        return self.expires_in or 0.0

    def __repr__(self) -> str:
        return f"Entry({self.key!r}, {self.value!r}, expires_in={self.expires_in})"


class CacheAPI:
    """`self.cache`."""

    def __init__(self, kvdb: Any) -> None:
        self._kvdb = kvdb

    @property
    def default(self) -> Cache:
        """The cache named `default`."""
        return Cache(self._kvdb, "default")

    def get_cache(self, cache_type: str, name: str) -> Cache:
        """A cache by type and name; the only type is `builtin`."""
        if cache_type != "builtin":
            raise NotSupported(f"caches of type `{cache_type}` are not in this release of ARINT; use `builtin`")
        return Cache(self._kvdb, name)

    def get_builtin_cache(self, name: str) -> Cache:
        """The same as `get_cache('builtin', name)`."""
        return self.get_cache("builtin", name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        # `self.cache.get(...)` is `self.cache.default.get(...)`.
        return getattr(self.default, name)


class Cache:
    """One cache.  Keys are text; expiry is in seconds, 0 meaning that an entry stays."""

    def __init__(self, kvdb: Any, name: str) -> None:
        self._kvdb = kvdb
        self.name = name
        self._prefix = f"{_PREFIX}{name}:"

    # One key

    def get(self, key: str, default: Any = None, details: bool = False) -> Any:
        """The value, or the default; with `details` an Entry."""
        conn = self._kvdb.conn
        stored = conn.get(self._prefix + str(key))
        if stored is None:
            return default
        value = jsons.loads(stored)
        if not details:
            return value
        left = conn.pttl(self._prefix + str(key))
        return Entry(str(key), value, left / 1000 if left >= 0 else None)

    def set(self, key: str, value: Any, expiry: float = 0, details: bool = False, **_: Any) -> Any:
        """Stores a value; raises TypeError for what JSON has no form for.  Returns an Entry with `details`."""
        text = jsons.dumps(value)
        milliseconds = int(float(expiry or 0) * 1000)
        self._kvdb.conn.set(self._prefix + str(key), text, px=milliseconds or None)
        return Entry(str(key), value, float(expiry) if expiry else None) if details else None

    def delete(self, key: str, raise_key_error: bool = False) -> Any:
        """Removes an entry and returns its value; None, or KeyError, where there is none."""
        value = self.get(key)
        if not self._kvdb.conn.delete(self._prefix + str(key)) and raise_key_error:
            raise KeyError(key)
        return value

    def expire(self, key: str, expiry: float) -> bool:
        """Sets when an entry ends; False where there is none."""
        return bool(self._expire(self._kvdb.conn, self._prefix + str(key), expiry))

    def __contains__(self, key: object) -> bool:
        return bool(self._kvdb.conn.exists(self._prefix + str(key)))

    def __getitem__(self, key: str) -> Any:
        value = self.get(key, _MISSING)
        if value is _MISSING:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        self.delete(key, raise_key_error=True)

    def __len__(self) -> int:
        return len(self.keys())

    # All keys

    def keys(self) -> list[str]:
        """All keys."""
        return self._keys()

    def values(self) -> list[Any]:
        """All values."""
        return list(self._values(self._keys()).values())

    def items(self) -> list[tuple[str, Any]]:
        """All keys with their values."""
        return list(self._values(self._keys()).items())

    def clear(self) -> None:
        """Removes all entries."""
        self._delete(self._keys())

    # Many keys: by prefix, suffix, regex, contains, not_contains, contains_all, contains_any

    def get_by_prefix(self, data: str, details: bool = False) -> dict[str, Any]:
        """Entries whose key begins with the text."""
        return self._get("prefix", data, details)

    def get_by_suffix(self, data: str, details: bool = False) -> dict[str, Any]:
        """Entries whose key ends with the text."""
        return self._get("suffix", data, details)

    def get_by_regex(self, data: str, details: bool = False) -> dict[str, Any]:
        """Entries in whose key the regular expression is found."""
        return self._get("regex", data, details)

    def get_contains(self, data: str, details: bool = False) -> dict[str, Any]:
        """Entries whose key contains the text."""
        return self._get("contains", data, details)

    def get_not_contains(self, data: str, details: bool = False) -> dict[str, Any]:
        """Entries whose key does not contain the text."""
        return self._get("not_contains", data, details)

    def get_contains_all(self, data: Iterable[str], details: bool = False) -> dict[str, Any]:
        """Entries whose key contains every one of the texts."""
        return self._get("contains_all", data, details)

    def get_contains_any(self, data: Iterable[str], details: bool = False) -> dict[str, Any]:
        """Entries whose key contains one of the texts."""
        return self._get("contains_any", data, details)

    def get_not_contains_all(self, data: Iterable[str], details: bool = False) -> dict[str, Any]:
        """Entries whose key lacks at least one of the texts."""
        return self._get("not_contains_all", data, details)

    def get_not_contains_any(self, data: Iterable[str], details: bool = False) -> dict[str, Any]:
        """Entries whose key contains none of the texts."""
        return self._get("not_contains_any", data, details)

    def set_by_prefix(self, data: str, value: Any, expiry: float = 0) -> list[str]:
        """Sets the value of every entry whose key begins with the text; returns the keys."""
        return self._set("prefix", data, value, expiry)

    def set_by_suffix(self, data: str, value: Any, expiry: float = 0) -> list[str]:
        """Sets the value of every entry whose key ends with the text; returns the keys."""
        return self._set("suffix", data, value, expiry)

    def set_by_regex(self, data: str, value: Any, expiry: float = 0) -> list[str]:
        """Sets the value of every entry in whose key the regular expression is found; returns the keys."""
        return self._set("regex", data, value, expiry)

    def set_contains(self, data: str, value: Any, expiry: float = 0) -> list[str]:
        """Sets the value of every entry whose key contains the text; returns the keys."""
        return self._set("contains", data, value, expiry)

    def set_not_contains(self, data: str, value: Any, expiry: float = 0) -> list[str]:
        """Sets the value of every entry whose key does not contain the text; returns the keys."""
        return self._set("not_contains", data, value, expiry)

    def set_contains_all(self, data: Iterable[str], value: Any, expiry: float = 0) -> list[str]:
        """Sets the value of every entry whose key contains every one of the texts; returns the keys."""
        return self._set("contains_all", data, value, expiry)

    def set_contains_any(self, data: Iterable[str], value: Any, expiry: float = 0) -> list[str]:
        """Sets the value of every entry whose key contains one of the texts; returns the keys."""
        return self._set("contains_any", data, value, expiry)

    def delete_by_prefix(self, data: str) -> list[str]:
        """Removes entries whose key begins with the text; returns the keys."""
        return self._delete(self._keys("prefix", data))

    def delete_by_suffix(self, data: str) -> list[str]:
        """Removes entries whose key ends with the text; returns the keys."""
        return self._delete(self._keys("suffix", data))

    def delete_by_regex(self, data: str) -> list[str]:
        """Removes entries in whose key the regular expression is found; returns the keys."""
        return self._delete(self._keys("regex", data))

    def delete_contains(self, data: str) -> list[str]:
        """Removes entries whose key contains the text; returns the keys."""
        return self._delete(self._keys("contains", data))

    def delete_not_contains(self, data: str) -> list[str]:
        """Removes entries whose key does not contain the text; returns the keys."""
        return self._delete(self._keys("not_contains", data))

    def delete_contains_all(self, data: Iterable[str]) -> list[str]:
        """Removes entries whose key contains every one of the texts; returns the keys."""
        return self._delete(self._keys("contains_all", data))

    def delete_contains_any(self, data: Iterable[str]) -> list[str]:
        """Removes entries whose key contains one of the texts; returns the keys."""
        return self._delete(self._keys("contains_any", data))

    def expire_by_prefix(self, data: str, expiry: float) -> list[str]:
        """Sets when entries end whose key begins with the text; returns the keys."""
        return self._expire_all(self._keys("prefix", data), expiry)

    def expire_by_suffix(self, data: str, expiry: float) -> list[str]:
        """Sets when entries end whose key ends with the text; returns the keys."""
        return self._expire_all(self._keys("suffix", data), expiry)

    def expire_by_regex(self, data: str, expiry: float) -> list[str]:
        """Sets when entries end in whose key the regular expression is found; returns the keys."""
        return self._expire_all(self._keys("regex", data), expiry)

    # How

    def _get(self, how: str, data: Any, details: bool) -> dict[str, Any]:
        values = self._values(self._keys(how, data))
        if not details:
            return values
        conn = self._kvdb.conn
        out = {}
        for key, value in values.items():
            left = conn.pttl(self._prefix + key)
            out[key] = Entry(key, value, left / 1000 if left >= 0 else None)
        return out

    def _set(self, how: str, data: Any, value: Any, expiry: float) -> list[str]:
        keys = self._keys(how, data)
        text = jsons.dumps(value)
        milliseconds = int(float(expiry or 0) * 1000)
        for key in keys:
            # Only where the entry is still there.
            self._kvdb.conn.set(self._prefix + key, text, px=milliseconds or None, xx=True)
        return keys

    def _delete(self, keys: list[str]) -> list[str]:
        conn = self._kvdb.conn
        for at in range(0, len(keys), _AT_ONCE):
            conn.delete(*(self._prefix + key for key in keys[at : at + _AT_ONCE]))
        return keys

    def _expire_all(self, keys: list[str], expiry: float) -> list[str]:
        conn = self._kvdb.conn
        for key in keys:
            self._expire(conn, self._prefix + key, expiry)
        return keys

    @staticmethod
    def _expire(conn: Any, key: str, expiry: float) -> Any:
        milliseconds = int(float(expiry or 0) * 1000)
        return conn.pexpire(key, milliseconds) if milliseconds else conn.persist(key)

    def _keys(self, how: str = "prefix", data: Any = "") -> list[str]:
        pattern = _escaped(self._prefix)
        if how == "prefix":
            pattern += _escaped(data) + "*"
        elif how == "suffix":
            pattern += "*" + _escaped(data)
        elif how == "contains":
            pattern += "*" + _escaped(data) + "*"
        else:
            pattern += "*"
        fits = _fits(how, data)
        start = len(self._prefix)
        found = {key[start:] for key in self._kvdb.conn.scan_iter(match=pattern, count=1000)}
        return sorted(key for key in found if fits(key))

    def _values(self, keys: list[str]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        conn = self._kvdb.conn
        for at in range(0, len(keys), _AT_ONCE):
            part = keys[at : at + _AT_ONCE]
            for key, stored in zip(part, conn.mget([self._prefix + key for key in part]), strict=True):
                if stored is not None:
                    out[key] = jsons.loads(stored)
        return out


_MISSING: Any = object()


def _escaped(text: str) -> str:
    return _GLOB.sub(r"\\\1", text)


def _fits(how: str, data: Any) -> Match:
    if how == "prefix":
        return lambda key: key.startswith(data)
    if how == "suffix":
        return lambda key: key.endswith(data)
    if how == "regex":
        regex = re.compile(data)
        return lambda key: regex.search(key) is not None
    if how == "contains":
        return lambda key: data in key
    if how == "not_contains":
        return lambda key: data not in key
    texts = [data] if isinstance(data, str) else list(data)
    if how == "contains_all":
        return lambda key: all(text in key for text in texts)
    if how == "contains_any":
        return lambda key: any(text in key for text in texts)
    if how == "not_contains_all":
        return lambda key: not all(text in key for text in texts)
    return lambda key: not any(text in key for text in texts)
