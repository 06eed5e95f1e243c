"""Media with a seed file, as an admin makes them: sticks, and a partition of the flashed disk."""

import re
import subprocess
from pathlib import Path

from harness import disk, images
from harness.tools import Failed, run, tool

LABEL = "ARINT-SEED"
FILE = "arint-seed.toml"
RECEIPT = "arint-seed.receipt.toml"
TAKEN = "arint-seed.taken.toml"
GUIDE = images.TOP / "docs/user/admin/first-steps.md"


def example() -> str:
    """The seed file that the guide for admins shows, letter by letter."""
    blocks = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    return next(block for block in blocks if "[admin]" in block)


def medium(path: Path, text: str | None, *, signature: bytes | None = None) -> Path:
    """A stick: FAT, with the label and the file."""
    with path.open("wb") as file:
        file.truncate(16 << 20)
    run(["mkfs.vfat", "-n", LABEL, path])
    if text is not None:
        write(path, FILE, text.encode())
    if signature is not None:
        write(path, f"{FILE}.sig", signature)
    return path


def write(path: Path, name: str, content: bytes, offset: int = 0) -> None:
    """Puts a file on a medium."""
    subprocess.run([tool("mcopy"), "-o", "-i", f"{path}@@{offset}", "-", f"::{name}"], input=content, check=True)


def files(path: Path, offset: int = 0) -> set[str]:
    """The names of the files on a medium."""
    try:
        lines = run(["mdir", "-b", "-i", f"{path}@@{offset}", "::"]).decode().splitlines()
    except Failed:
        return set()
    return {line.removeprefix("::/").rstrip("/") for line in lines if line.strip()}


def read(path: Path, name: str, offset: int = 0) -> str:
    """A file on a medium."""
    return run(["mtype", "-i", f"{path}@@{offset}", f"::{name}"]).decode()


def sign(text: str, work: Path, key: Path | None = None) -> bytes:
    """The signature by a key, or that of the images, made as the guide says."""
    plain, signature = work / FILE, work / f"{FILE}.sig"
    plain.write_text(text)
    run(["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", key or images.keys() / "seed.key", "-in", plain, "-out", signature])
    return signature.read_bytes()


def with_partition(image: Path, target: Path, text: str) -> Path:
    """The image as it was flashed, with one more partition for the seed behind its own."""
    run(["cp", "--sparse=always", image, target])
    with target.open("r+b") as file:
        file.truncate(image.stat().st_size + (20 << 20))
    subprocess.run([tool("sfdisk"), "--quiet", "--append", target], input=f"size=16M, name={LABEL}\n".encode(),
                   check=True)
    content = medium(target.with_suffix(".seed"), text)
    place = disk.partitions(target)[LABEL]
    run(["dd", f"if={content}", f"of={target}", f"seek={place.offset}", "oflag=seek_bytes", "conv=notrunc", "bs=1M",
         "status=none"])
    content.unlink()
    return target
