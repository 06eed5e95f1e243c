from zato.server.service import Service


class Order(Service):
    name = 'life.order'

    def accept(self):
        self.seen = ['accept']
        return True

    def before_handle(self):
        self.seen.append('before_handle')
        raise ValueError('only logged')

    def validate_input(self):
        self.seen.append('validate_input')

    def handle(self):
        self.seen.append('handle')
        self.response.payload = {'seen': self.seen}

    def validate_output(self):
        self.seen.append('validate_output')

    def after_handle(self):
        self.seen.append('after_handle')
        raise ValueError('only logged')

    def finalize_handle(self):
        self.seen.append('finalize_handle')


class Refuses(Service):
    name = 'life.refuses'

    def accept(self):
        return False

    def handle(self):
        self.response.payload = 'never'


class BadInput(Service):
    name = 'life.bad-input'

    def validate_input(self):
        raise ValueError('input')

    def handle(self):
        self.response.payload = 'never'


class BadOutput(Service):
    name = 'life.bad-output'

    def handle(self):
        self.response.payload = 'never'

    def validate_output(self):
        raise ValueError('output')


class Handler(Service):
    name = 'life.handler'

    def handler(self):
        self.response.payload = 'handler'


class Verbs(Service):
    name = 'life.verbs'

    def handle_GET(self):
        self.response.payload = 'GET'

    def handle_POST(self):
        self.response.payload = 'POST'


class InvokesVerbs(Service):
    name = 'life.invokes-verbs'

    def handle(self):
        self.response.payload = {'answer': self.invoke('life.verbs')}


class GetPhoto(Service):
    """Without a name of its own."""

    def handle(self):
        self.response.payload = self.name


class NotDeployed(Service):
    name = 'life.not-deployed'

    @staticmethod
    def before_add_to_store(logger):
        return False

    def handle(self):
        pass


class Schema(Service):
    name = 'life.schema'
    schema = {
        'type': 'object', 'required': ['lines'],
        'properties': {'lines': {'type': 'array', 'items': {'type': 'object', 'properties': {'count': {'type': 'integer'}}}}},
    }

    def handle(self):
        self.response.payload = {'lines': len(self.request.payload['lines'])}


class SchemaText(Service):
    name = 'life.schema-text'
    schema = '{"type": "array", "maxItems": 1}'

    def handle(self):
        self.response.payload = {'ok': True}


class Async(Service):
    name = 'life.async'
    input = 'name'

    async def handle(self):
        self.response.payload = {'by': await self.aio.invoke('life.handler'), 'name': self.request.input.name}
