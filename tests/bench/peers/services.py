"""The services of the figures."""

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
