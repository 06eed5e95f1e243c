"""The services of the figures."""

import time

from zato.server.service import Service


class Echo(Service):
    """Answers what it was sent."""

    name = 'bench.echo'

    def handle(self):
        self.response.payload = self.request.payload


class Wait(Service):
    """Calls another system that takes its time."""

    name = 'bench.wait'

    def handle(self):
        answer = self.out.rest['bench-slow'].conn.get(self.cid)
        self.response.payload = {'status': answer.status_code}


class SoapEcho(Service):
    """Answers what it was sent, by SOAP."""

    name = 'bench.soap-echo'

    class SimpleIO:
        input_required = 'text'
        output_required = 'text'

    def handle(self):
        self.response.payload = {'text': self.request.input.text}


class Pause(Service):
    """Takes 20 ms, so that a worker always has some that have begun."""

    name = 'bench.pause'

    def handle(self):
        time.sleep(0.02)
        self.response.payload = {'a': 1}
