"""Real PostgreSQL and MariaDB in folders of their own, run by an ordinary user."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

PASSWORD = "ge:h/e@i m%"
_LIMIT_S = 60.0


def free_port() -> int:
    """One that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A database server that can be stopped and started again."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ardb"))
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        # As root they refuse to run.
        self.as_user = ["setpriv", "--reuid=nobody", "--clear-groups"] if os.getuid() == 0 else []
        if self.as_user:
            shutil.chown(self.folder, "nobody")
            self.folder.chmod(0o711)

    def run(self, command: list[str], **more: object) -> None:
        done = subprocess.run(
            self.as_user + command, cwd=self.folder, capture_output=True, check=False, **more  # type: ignore[call-overload]
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)

    def start_with(self, command: list[str]) -> None:
        log = open(self.folder / "log", "ab")
        self.process = subprocess.Popen(self.as_user + command, cwd=self.folder, stdout=log, stderr=log)
        log.close()
        until = time.monotonic() + _LIMIT_S
        while not self.answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < until, f"{command[0]} does not answer: {(self.folder / 'log').read_text()}"
            time.sleep(0.05)

    def answers(self) -> bool:
        raise NotImplementedError

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(_LIMIT_S)
            self.process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class PostgreSQL(Server):
    """Database `crm`, user `crm`."""

    def __init__(self) -> None:
        super().__init__()
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not found:
            pytest.fail("this test needs PostgreSQL; install the package postgresql", pytrace=False)
        self.bin = found[-1].parent
        secret = self.folder / "secret"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        options = ["-D", "data", "-U", "crm", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync", "-E", "UTF8"]
        self.run([str(self.bin / "initdb"), *options])
        self.start()
        import pg8000.native

        with pg8000.native.Connection("crm", "127.0.0.1", "postgres", self.port, PASSWORD) as connection:
            connection.run("CREATE DATABASE crm")

    def start(self) -> None:
        options = ["-p", str(self.port), "-h", "127.0.0.1", "-k", str(self.folder), "-F"]
        self.start_with([str(self.bin / "postgres"), "-D", "data", *options])

    def answers(self) -> bool:
        import pg8000.native

        try:
            pg8000.native.Connection("crm", "127.0.0.1", "postgres", self.port, PASSWORD).close()
            return True
        except Exception:
            return False

    def stop(self) -> None:
        if self.process is not None:
            # SIGINT: sessions under way are ended.
            self.process.send_signal(2)
            self.process.wait(_LIMIT_S)
            self.process = None

    def url(self, engine: str = "postgresql", password: str = PASSWORD) -> str:
        from urllib.parse import quote

        return f"{engine}://crm:{quote(password, safe='')}@127.0.0.1:{self.port}/crm"


class MariaDB(Server):
    """Database `crm`, user `crm`."""

    def __init__(self) -> None:
        super().__init__()
        install = shutil.which("mariadb-install-db")
        self.program = shutil.which("mariadbd") or "/usr/sbin/mariadbd"
        if install is None or not Path(self.program).exists() or shutil.which("my_print_defaults") is None:
            pytest.fail("this test needs MariaDB; install mariadb-server-core and mariadb-client-core", pytrace=False)
        self.run([install, "--no-defaults", f"--datadir={self.folder}/data", "--auth-root-authentication-method=normal", "--skip-test-db"])
        self.start()
        import pymysql

        root = pymysql.connect(unix_socket=str(self.folder / "s"), user="root")
        with root.cursor() as cursor:
            cursor.execute("CREATE DATABASE crm CHARACTER SET utf8mb4")
            cursor.execute("CREATE USER crm@'%%' IDENTIFIED BY %s", (PASSWORD,))
            cursor.execute("GRANT ALL ON crm.* TO crm@'%'")
        root.close()

    def start(self) -> None:
        self.start_with(
            [
                self.program,
                "--no-defaults",
                f"--datadir={self.folder}/data",
                f"--socket={self.folder}/s",
                f"--port={self.port}",
                "--bind-address=127.0.0.1",
                "--skip-log-bin",
                "--skip-name-resolve",
                "--innodb-flush-log-at-trx-commit=0",
            ]
        )

    def answers(self) -> bool:
        import pymysql

        try:
            pymysql.connect(unix_socket=str(self.folder / "s"), user="root").close()
            return True
        except Exception:
            return False

    def url(self, engine: str = "mysql", password: str = PASSWORD) -> str:
        from urllib.parse import quote

        return f"{engine}://crm:{quote(password, safe='')}@127.0.0.1:{self.port}/crm"
