"""JSON Schema on a service: what does not fit is answered with 400 before `handle` runs."""

from zato.server.service import Service


class Register(Service):
    """Registers an address."""

    name = 'examples.register'
    schema = {
        'type': 'object',
        'required': ['mail'],
        'properties': {'mail': {'type': 'string', 'minLength': 3}, 'age': {'type': 'integer', 'minimum': 18}},
        'additionalProperties': False,
    }

    def handle(self):
        self.response.payload = {'registered': self.request.payload['mail']}
