"""A real database server for tests of a whole node: `database_peer.py PostgreSQL|MariaDB`.

Prints its port and password as JSON, then does what stdin says: `stop`, `start`; at the end of stdin it goes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "appliance/arsrv/sdk/tests"))

import databases  # noqa: E402  (its folder was just added)


def main() -> None:
    server = {"PostgreSQL": databases.PostgreSQL, "MariaDB": databases.MariaDB}[sys.argv[1]]()
    try:
        print(json.dumps({"port": server.port, "password": databases.PASSWORD}), flush=True)
        for line in sys.stdin:
            {"stop": server.stop, "start": server.start}[line.strip()]()
            print("done", flush=True)
    finally:
        server.close()


main()
