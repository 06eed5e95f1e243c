"""Fixtures: worker processes, and a real key-value server for those tests that need one."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
from harness import Core


@pytest.fixture(scope="module")
def core() -> Iterator[Core]:
    """A worker with every service of `tests/services`, shared by one test module."""
    with Core(
        user_config={"crm": {"server": {"url": "https://crm.example"}}},
        inactive=["orders.off"],
    ) as running:
        assert running.failed is None, running.failed
        yield running


@pytest.fixture(scope="session")
def redis_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The Unix socket of a `redis-server` that lives as long as the tests."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.fail("the key-value tests need `redis-server`; install the package redis-server", pytrace=False)
    folder = tmp_path_factory.mktemp("redis")
    path = folder / "kvdb.sock"
    process = subprocess.Popen(
        [program, "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(folder), "--requirepass", "s3cret"],
        stdout=subprocess.DEVNULL,
    )
    until = time.monotonic() + 10
    while not _answers(path):
        assert process.poll() is None, "redis-server ended"
        assert time.monotonic() < until, "redis-server does not answer"
        time.sleep(0.01)
    yield str(path)
    process.terminate()
    process.wait(10)


def _answers(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
            return True
    except OSError:
        return False


@pytest.fixture
def deploy(tmp_path: Path) -> Any:
    """Starts a worker on modules given as text: `deploy(photos="...")`."""
    cores: list[Core] = []

    def start(*, hello: dict[str, Any] | None = None, **sources: str) -> Core:
        folder = tmp_path / f"modules{len(cores)}"
        folder.mkdir()
        for name, source in sources.items():
            (folder / f"{name}.py").write_text(source)
        core = Core(folder, list(sources), **(hello or {}))
        cores.append(core)
        return core

    yield start
    for core in cores:
        core.close()
