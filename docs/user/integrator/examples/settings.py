"""Settings of an admin, the clock, and encryption."""

from zato.server.service import Service


class Ticket(Service):
    """Makes a ticket that only this box can read."""

    name = 'examples.ticket'

    def handle(self):
        most = int(self.user_config.tickets.limits.most)
        ticket = self.crypto.encrypt(f'{self.cid} {self.time.utcnow()}')
        self.response.payload = {'ticket': ticket, 'most': most}
