"""Test of `key_values.py`, with a server that runs: it speaks as the box's own store does."""

import shutil
import socket
import subprocess
import time

import pytest

from key_values import Visit


@pytest.fixture
def store():
    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    server = shutil.which('redis-server')
    assert server, 'this test needs `redis-server`: install the Debian package `redis-server`'
    process = subprocess.Popen([server, '--port', str(port), '--save', ''], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(('127.0.0.1', port), timeout=1).close()
            break
        except OSError:
            assert time.monotonic() < until, 'redis-server does not answer'
            time.sleep(0.02)
    yield {'host': '127.0.0.1', 'port': port}
    process.kill()
    process.wait()


def test_visits_are_counted(arint, store):
    arint.use_kvdb(**store)
    send = lambda who: arint.request(Visit, json={'who': who}).data
    assert send('anna') == {'count': 1, 'before': None}
    assert send('bert') == {'count': 2, 'before': 'anna'}
