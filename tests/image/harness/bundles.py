"""Update bundles that were tampered with, or signed by somebody else.

A RAUC bundle of the format `verity` is: the payload (squashfs, then its hash tree), the signature (CMS with the
manifest inside), and the length of the signature in the last eight bytes.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from harness.tools import run


def parts(bundle: Path) -> tuple[int, bytes]:
    """The length of the payload, and the signature."""
    size = bundle.stat().st_size
    with bundle.open("rb") as file:
        file.seek(size - 8)
        length = int.from_bytes(file.read(8), "big")
        file.seek(size - 8 - length)
        return size - 8 - length, file.read(length)


def manifest(bundle: Path) -> str:
    """The manifest inside the signature."""
    _, signature = parts(bundle)
    done = run(["openssl", "cms", "-verify", "-noverify", "-inform", "DER", "-binary"], stdin=signature)
    return done.decode()


def resigned(bundle: Path, target: Path, certificate: Path, key: Path, change: Callable[[str], str] = str) -> Path:
    """The same payload under another signature, and with a changed manifest."""
    length, _ = parts(bundle)
    text = change(manifest(bundle))
    signature = run(["openssl", "cms", "-sign", "-nodetach", "-binary", "-nosmimecap", "-outform", "DER",
                     "-signer", certificate, "-inkey", key, "-md", "sha256"], stdin=text.encode())
    shutil.copyfile(bundle, target)
    with target.open("r+b") as file:
        file.truncate(length)
        file.seek(length)
        file.write(signature + len(signature).to_bytes(8, "big"))
    return target


def stranger(folder: Path) -> tuple[Path, Path]:
    """Certificate and key of somebody the box does not know."""
    certificate, key = folder / "stranger.crt", folder / "stranger.key"
    run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=stranger",
         "-addext", "extendedKeyUsage=emailProtection,codeSigning", "-keyout", key, "-out", certificate])
    return certificate, key


def tampered(bundle: Path, target: Path) -> Path:
    """One bit in every 64 KiB of the payload is another: an update that takes little reads few of them."""
    length, _ = parts(bundle)
    shutil.copyfile(bundle, target)
    with target.open("r+b") as file:
        for position in range(100, length, 65536):
            file.seek(position)
            byte = file.read(1)
            file.seek(position)
            file.write(bytes([byte[0] ^ 0x20]))
    return target
