"""The images under test: built by the recipe, kept between runs, with the variants that break on purpose.

`ARINT_IMAGE_BUILD` names another recipe with the options of `image/debian/build`; so the same suite runs on the
Buildroot image.  With `ARINT_IMAGE_KEEP=1` what was built once is taken as it is.
"""

import fcntl
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness.peer import cache
from harness.tools import run

TOP = Path(__file__).resolve().parents[3]
VARIANTS = TOP / "tests/image/variants"
#: The versions: what the box starts with, the next one, and those that are to fail.
VERSION_A = "0.9.0"
VERSION_B = "0.9.1"
VERSION_BAD = "0.9.2"
VERSION_LAST = "0.9.3"


class BuildFailed(RuntimeError):
    """The recipe failed."""


@dataclass(frozen=True)
class Image:
    """What the recipe made."""

    folder: Path

    @property
    def disk(self) -> Path:
        """The disk image, not compressed."""
        raw = self.folder / "image.img"
        if not raw.exists():
            run(["zstd", "-q", "-d", "-f", self.folder / "image.img.zst", "-o", raw])
        return raw

    @property
    def installer(self) -> Path:
        """The stick with the installer, not compressed."""
        raw = self.folder / "installer.img"
        if not raw.exists():
            run(["zstd", "-q", "-d", "-f", self.folder / "installer.img.zst", "-o", raw])
        return raw

    @property
    def bundle(self) -> Path:
        """The update bundle."""
        return self.folder / "bundle.raucb"

    @property
    def uki(self) -> bytes:
        """The unified kernel image."""
        return (self.folder / "boot.efi").read_bytes()

    @property
    def manifest(self) -> dict[str, object]:
        """What the recipe says of it."""
        return dict(json.loads((self.folder / "manifest.json").read_text()))

    @property
    def version(self) -> str:
        """Its version."""
        return str(self.manifest["version"])


def folder() -> Path:
    """Where images of the tests are kept."""
    return Path(os.environ.get("ARINT_IMAGE_TESTS") or cache())


def keys() -> Path:
    """The development keys that every image of the tests is made with."""
    return folder() / "keys"


def image(version: str = VERSION_A, variant: str | None = None, *, disk: bool = False, bundle: bool = True,
          name: str | None = None, signed_by: Path | None = None, parts: tuple[str, ...] = ()) -> Image:
    """Builds an image, or finds it built; `variant` is a script of tests/image/variants that breaks the root."""
    name = name or f"{variant or 'plain'}-{version}"
    out = folder() / name
    out.mkdir(parents=True, exist_ok=True)
    if os.environ.get("ARINT_IMAGE_KEEP") and (out / "stamp").exists():
        return Image(out)
    recipe = os.environ.get("ARINT_IMAGE_BUILD") or str(TOP / "image/debian/build")
    made = parts or tuple(part for part, wanted in (("disk", disk), ("bundle", bundle)) if wanted)
    words = [recipe, "--quiet", "--out", str(out), "--version", version, "--keys", str(signed_by or keys()),
             "--only", ",".join(made)]
    for option in ("arint", "arinit"):
        if given := os.environ.get(f"ARINT_IMAGE_{option.upper()}"):
            words += [f"--{option}", given]
    if variant:
        words += ["--root-hook", str(VARIANTS / f"{variant}.sh")]
    with (folder() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=TOP)
    if done.returncode != 0:
        raise BuildFailed(f"`{' '.join(words)}` ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return Image(out)
