"""`arctl`, as an admin calls it on his own machine."""

import os
import subprocess
from pathlib import Path

from harness.box import Box
from harness.images import TOP
from harness.waiting import patience


def executable() -> Path:
    """The program that went into the image."""
    if given := os.environ.get("ARINT_IMAGE_ARINT"):
        return Path(given)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "arint"
    target = Path(os.environ.get("CARGO_TARGET_DIR") or base / "target")
    found = [path for path in (target / "release/arint", base / "image/stage/arint") if path.exists()]
    if not found:
        raise FileNotFoundError(f"no `arint` was built for the image; run image/debian/build in {TOP}")
    return found[0]


def arctl(box: Box, *words: str, seconds: float = 900) -> tuple[int, str, str]:
    """Runs it against a box, with the token and the pinned certificate of its admin."""
    here = {**os.environ, "ARCTL_SERVER": f"https://127.0.0.1:{box.api.port}", "ARCTL_TOKEN": box.api.token or "",
            "ARCTL_FINGERPRINT": box.api.pinned or "", "NO_COLOR": "1"}
    done = subprocess.run([str(executable()), "arctl", *words], env=here, capture_output=True, text=True, check=False,
                          timeout=seconds * patience())
    return done.returncode, done.stdout, done.stderr
