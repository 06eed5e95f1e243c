# -*- coding: utf-8 -*-

# stdlib
import os
import signal
import sys
import threading
import time

# Zato
from zato.common.exception import BadRequest, Conflict, Forbidden, Inactive, InternalServerError, MethodNotAllowed, \
     NotFound, ServiceUnavailable, TimeoutException, TooManyRequests, Unauthorized, ZatoException
from zato.server.connection.http_soap import BadRequest as OldBadRequest
from zato.server.service import Service

assert OldBadRequest is BadRequest

# Set by one service and awaited by another, so that tests need no time to pass.
_gate = threading.Event()
_arrived = threading.Semaphore(0)


class Raise(Service):
    def handle(self):
        self.response.headers['X-Was-Here'] = 'yes'
        kind = self.request.payload['kind']
        raise {
            'bad-request': lambda: BadRequest(self.cid, 'the number is odd'),
            'bad-request-msg': lambda: BadRequest(self.cid, 'the number is odd', needs_msg=True),
            'unauthorized': lambda: Unauthorized(self.cid, 'who are you', 'Basic realm="crm"'),
            'forbidden': lambda: Forbidden(self.cid, 'not yours'),
            'not-found': lambda: NotFound(self.cid, 'no such thing'),
            'not-found-default': lambda: NotFound(self.cid),
            'method': lambda: MethodNotAllowed(self.cid, 'not like that'),
            'conflict': lambda: Conflict(self.cid, 'taken'),
            'too-many': lambda: TooManyRequests(self.cid, 'slower'),
            'internal': lambda: InternalServerError(self.cid, 'our fault'),
            'unavailable': lambda: ServiceUnavailable(self.cid, 'later'),
            'zato': lambda: ZatoException(self.cid, 'something'),
            'inactive': lambda: Inactive('crm', self.cid),
            'timeout': lambda: TimeoutException(self.cid, 'too slow'),
            'value': lambda: ValueError('wrong', 7, {'a': object}),
            'empty': lambda: KeyError(),
            'memory': lambda: MemoryError(),
            'recursion': lambda: self._deep(),
            'unprintable': lambda: Unprintable(),
        }[kind]()

    def _deep(self):
        return self._deep()


class Unprintable(Exception):
    def __str__(self):
        raise Exception('no')


class End(Service):
    def handle(self):
        kind = self.request.payload['kind']
        if kind == 'os._exit':
            os._exit(3)
        elif kind == 'os.abort':
            os.abort()
        elif kind == 'sys.exit':
            sys.exit(3)
        elif kind == 'kill':
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == 'raise_signal':
            signal.raise_signal(signal.SIGTERM)
        elif kind == 'interrupt':
            raise KeyboardInterrupt()


class ForkAndExit(Service):
    def handle(self):
        pid = os.fork()
        if not pid:
            os._exit(7)
        self.response.payload = {'code': os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}


class Wait(Service):
    """ Blocks, as services do that know nothing of the SDK.
    """
    def handle(self):
        _arrived.release()
        if not _gate.wait(20):
            raise Exception('the gate stayed closed')
        self.response.payload = 'waited'


class Open(Service):
    """ Waits for as many waiting services as it is told and lets them all go.
    """
    def handle(self):
        for _ in range(int(self.request.payload)):
            if not _arrived.acquire(timeout=20):
                raise Exception('they did not arrive')
        _gate.set()
        self.response.payload = 'opened'


class Close(Service):
    def handle(self):
        _gate.clear()


class Spin(Service):
    """ Computes for ever.
    """
    def handle(self):
        while True:
            pass


class Print(Service):
    def handle(self):
        print('printed by a service')
        print('complained by a service', file=sys.stderr)


class ReadStdin(Service):
    def handle(self):
        self.response.payload = repr(sys.stdin.read())


class Crash(Service):
    def handle(self):
        import ctypes
        ctypes.string_at(0)


class DeepInC(Service):
    """ Recursion through C code needs stack.
    """
    def handle(self):
        import functools

        def deep(n):
            return functools.reduce(lambda _, n: deep(n + 1), [n], n)

        try:
            deep(0)
        except RecursionError:
            self.response.payload = 'RecursionError'
