"""Writes the block map of a disk image in bmaptool's format: which blocks have to be written, with their checksums.

A block of zeros counts as a hole whether or not the file system of the build machine made it one, so that the same
image has the same map everywhere.  Usage: blockmap.py IMAGE > IMAGE.bmap
"""

import hashlib
import sys
from pathlib import Path

BLOCK = 4096
ZERO = bytes(BLOCK)
# Ranges that lie closer together than this are written as one: seeking costs more than 64 KiB of zeros.
GAP = 16


def ranges(image: Path) -> list[tuple[int, int]]:
    """First and last block of each range that is not all zeros."""
    found: list[tuple[int, int]] = []
    with image.open("rb") as file:
        number = 0
        while chunk := file.read(256 * BLOCK):
            if chunk.count(0) != len(chunk):
                for start in range(0, len(chunk), BLOCK):
                    if chunk[start : start + BLOCK] != ZERO[: len(chunk) - start]:
                        block = number + start // BLOCK
                        if found and block - found[-1][1] <= GAP:
                            found[-1] = (found[-1][0], block)
                        else:
                            found.append((block, block))
            number += -(-len(chunk) // BLOCK)
    return found


def checksum(image: Path, first: int, last: int) -> str:
    """SHA-256 of the blocks `first` to `last`."""
    digest = hashlib.sha256()
    with image.open("rb") as file:
        file.seek(first * BLOCK)
        left = (last - first + 1) * BLOCK
        while left and (chunk := file.read(min(left, 1 << 20))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()


def block_map(image: Path) -> str:
    """The map as XML."""
    size = image.stat().st_size
    used = ranges(image)
    mapped = sum(last - first + 1 for first, last in used)
    lines = [
        '<?xml version="1.0" ?>',
        '<bmap version="2.0">',
        f"    <ImageSize> {size} </ImageSize>",
        f"    <BlockSize> {BLOCK} </BlockSize>",
        f"    <BlocksCount> {-(-size // BLOCK)} </BlocksCount>",
        f"    <MappedBlocksCount> {mapped} </MappedBlocksCount>",
        "    <ChecksumType> sha256 </ChecksumType>",
        f"    <BmapFileChecksum> {'0' * 64} </BmapFileChecksum>",
        "    <BlockMap>",
    ]
    for first, last in used:
        place = str(first) if first == last else f"{first}-{last}"
        lines.append(f'        <Range chksum="{checksum(image, first, last)}"> {place} </Range>')
    lines += ["    </BlockMap>", "</bmap>", ""]
    text = "\n".join(lines)
    # The file's own checksum is taken with zeros in its place.
    return text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest(), 1)


if __name__ == "__main__":
    sys.stdout.write(block_map(Path(sys.argv[1])))
