"""Firmware variables with Secure Boot keys enrolled, as an owner's machine would have them.

The store of OVMF is a list of records behind a header; the keys are appended as the firmware itself would have
kept them after enrolling.
"""

import struct
import uuid
from pathlib import Path

from harness.tools import firmware

GLOBAL = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
IMAGE_SECURITY = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
#: Kept, seen by boot services and by the system, changed only with a signed time stamp.
ATTRIBUTES = 0x27
ADDED = 0x3F
#: 1 January 2020, as an EFI_TIME.
TIME = struct.pack("<HBBBBBBIhBB", 2020, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0)


def variable(name: str, vendor: uuid.UUID, data: bytes) -> bytes:
    """One record."""
    text = (name + "\0").encode("utf-16-le")
    head = struct.pack("<HBBIQ", 0x55AA, ADDED, 0, ATTRIBUTES, 0) + TIME
    head += struct.pack("<III", 0, len(text), len(data)) + vendor.bytes_le
    record = head + text + data
    return record + b"\xff" * (-len(record) % 4)


def variables(keys: Path, target: Path) -> Path:
    """OVMF's empty variables with PK, KEK and db from the lists `keys.sh` made."""
    store = bytearray(firmware(secure=True)[1].read_bytes())
    (volume_header,) = struct.unpack_from("<H", store, 48)
    (size,) = struct.unpack_from("<I", store, volume_header + 16)
    at = volume_header + 28
    while struct.unpack_from("<H", store, at)[0] == 0x55AA:
        name, data = struct.unpack_from("<II", store, at + 36)
        at += (60 + name + data + 3) // 4 * 4
    for name, vendor in (("PK", GLOBAL), ("KEK", GLOBAL), ("db", IMAGE_SECURITY)):
        record = variable(name, vendor, (keys / f"{name}.esl").read_bytes())
        store[at:at + len(record)] = record
        at += len(record)
    assert at < volume_header + size
    target.write_bytes(store)
    return target
