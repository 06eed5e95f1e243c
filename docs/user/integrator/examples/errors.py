"""Answering with a status: exceptions of the SDK have theirs, any other is 500."""

from zato.common.exception import BadRequest, NotFound

from zato.server.service import Service


class Withdraw(Service):
    """Takes money from an account."""

    name = 'examples.withdraw'
    input = 'account', 'amount'

    def handle(self):
        if self.request.input.account != 'anna':
            raise NotFound(self.cid, 'there is no such account')
        if not self.request.input.amount.isdigit():
            # Callers see the sentence of a BadRequest only where it says so.
            raise BadRequest(self.cid, f'`{self.request.input.amount}` is not an amount', needs_msg=True)
        self.response.payload = {'left': 100 - int(self.request.input.amount)}
