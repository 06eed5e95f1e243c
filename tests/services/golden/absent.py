from zato.server.service import PubSubHook, Service, WSXHook


class Touch(Service):
    name = 'absent.touch'

    def handle(self):
        value = self
        for name in self.request.input.path.split('.'):
            value = getattr(value, name)
        self.response.payload = 'there'


class Hook(PubSubHook):
    def before_publish(self):
        pass


class SocketHook(WSXHook):
    def on_connected(self):
        pass
