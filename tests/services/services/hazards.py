from zato.server.service import Service

import ctypes
import os
import time


class Good(Service):
    name = 'hazards.good'

    def handle(self):
        self.response.payload = {'good': True}


class Loop(Service):
    name = 'hazards.loop'

    def handle(self):
        while True:
            pass


class Leak(Service):
    name = 'hazards.leak'
    kept = []

    def handle(self):
        while True:
            self.kept.append(b'x' * 1048576)


class Exit(Service):
    name = 'hazards.exit'

    def handle(self):
        os._exit(3)


class Crash(Service):
    name = 'hazards.crash'

    def handle(self):
        ctypes.string_at(0)


class Sleep(Service):
    name = 'hazards.sleep'

    def handle(self):
        time.sleep(0.3)
        self.response.payload = {'slept': True}
