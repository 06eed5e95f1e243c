"""`self.crypto`: encryption by the box's key, password hashes, random secrets.

Hashes have the form that installations of 3.2 have written, so that old ones
verify.  Encryption and decryption (Fernet) are done by the core: the key never
reaches a service.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from typing import Any

from arint.errors import ZatoException

__all__ = ["Crypto"]

_ROUNDS = 100_000
_SALT_BYTES = 32
_PREFIX = "$pbkdf2-sha512$"


class Crypto:
    """`self.crypto`."""

    def __init__(self, service: Any) -> None:
        self._service = service

    def encrypt(self, data: Any, needs_str: bool = True) -> Any:
        """Text or bytes as a Fernet token; text unless `needs_str` is false."""
        token = self._ask("encrypt", _as_bytes(data))
        return token.decode("ascii") if needs_str else token

    def decrypt(self, data: Any) -> str:
        """What a token of `encrypt` was made of; raises ValueError for one that this box's key does not open."""
        return self._ask("decrypt", _as_bytes(data)).decode("utf-8")

    def _ask(self, action: str, data: bytes) -> bytes:
        from arint import runtime

        meta, body = runtime.get().request({"op": "crypto", "action": action, "cid": self._service.cid}, data)
        error = meta.get("error")
        if error is None:
            return body
        if error.get("type") == "bad-request":
            raise ValueError(error.get("message"))
        raise ZatoException(self._service.cid, error.get("message"))

    def hash_secret(self, data: Any, name: str = "zato.default", rounds: int = _ROUNDS) -> str:
        """A salted hash of a secret: PBKDF2 with SHA-512, in the form that 3.2 writes."""
        salt = os.urandom(_SALT_BYTES)
        return f"{_PREFIX}{rounds}${_encoded(salt)}${_encoded(_hashed(data, salt, rounds))}"

    def verify_hash(self, given: Any, expected: str, name: str = "zato.default") -> bool:
        """Whether a secret is the one that a hash was made of; false for what is no such hash."""
        parts = str(expected).split("$")
        if len(parts) != 5 or not str(expected).startswith(_PREFIX):
            return False
        try:
            rounds, salt, hashed = int(parts[2]), _decoded(parts[3]), _decoded(parts[4])
        except (ValueError, binascii.Error):
            return False
        if not 1 <= rounds <= 10_000_000:
            return False
        return hmac.compare_digest(_hashed(given, salt, rounds), hashed)

    @staticmethod
    def generate_secret(bits: int = 256) -> bytes:
        """So many random bits, as URL-safe base64."""
        return base64.urlsafe_b64encode(secrets.token_bytes(max(1, bits // 8)))

    @staticmethod
    def generate_password(bits: int = 192, to_str: bool = True) -> Any:
        """A random password, as URL-safe base64."""
        value = base64.urlsafe_b64encode(secrets.token_bytes(max(1, bits // 8)))
        return value.decode("ascii") if to_str else value

    @staticmethod
    def generate_key() -> bytes:
        """A new Fernet key."""
        return base64.urlsafe_b64encode(secrets.token_bytes(32))


def _as_bytes(data: Any) -> bytes:
    return data.encode("utf-8") if isinstance(data, str) else bytes(data)


def _hashed(data: Any, salt: bytes, rounds: int) -> bytes:
    from arint import runtime

    # OpenSSL lets go of the interpreter meanwhile, but not of the lead.
    there = runtime.maybe()
    if there is None or there.loop_ident:
        return hashlib.pbkdf2_hmac("sha512", _as_bytes(data), salt, rounds)
    there.block()
    try:
        return hashlib.pbkdf2_hmac("sha512", _as_bytes(data), salt, rounds)
    finally:
        there.unblock()


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii").rstrip("=").replace("+", ".")


def _decoded(text: str) -> bytes:
    padded = text.replace(".", "+") + "=" * (-len(text) % 4)
    return base64.b64decode(padded, validate=True)
