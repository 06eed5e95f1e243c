"""A client of WebSocket channels: websockets (Debian's python3-websockets), run by the system's Python.

Its arguments are address, user's name and secret; prints each message it gets, in order.
"""

import asyncio
import json
import sys

import websockets

ADDRESS, USERNAME, SECRET = sys.argv[1:]


async def main():
    async with websockets.connect(ADDRESS, ping_interval=0.2, ping_timeout=10) as socket:
        meta = {"action": "create-session", "id": "1", "timestamp": "2026-01-01T00:00:00", "client_id": "py"}
        await socket.send(json.dumps({"meta": {**meta, "username": USERNAME, "secret": SECRET}}))
        created = json.loads(await socket.recv())
        print(json.dumps(created), flush=True)
        token = created["data"]["token"]
        for number in range(3):
            meta = {"action": "invoke-service", "id": f"m{number}", "timestamp": "2026-01-01T00:00:00", "token": token}
            await socket.send(json.dumps({"meta": meta, "data": {"n": number}}))
        for _ in range(3):
            print(await socket.recv(), flush=True)
        # Long enough for pings of both sides.
        await asyncio.sleep(1)


asyncio.run(main())
