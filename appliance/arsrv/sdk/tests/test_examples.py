"""Every example of the integrator's guide runs, and every one has a test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
EXAMPLES = ROOT / "docs/user/integrator/examples"


def test_every_example_passes_its_own_test() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLES)],
        cwd=EXAMPLES,
        env={"PYTHONPATH": str(ROOT / "appliance/arsrv/sdk/src"), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_example_has_a_test_and_a_line_in_the_list() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    names = sorted(file.name for file in EXAMPLES.glob("*.py") if not file.name.startswith(("test_", "conftest")))
    assert len(names) >= 13
    for name in names:
        assert (EXAMPLES / f"test_{name}").exists(), name
        assert f"`{name}`" in listed, name
