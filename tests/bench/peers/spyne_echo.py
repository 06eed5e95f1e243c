"""The SOAP echo of the figures, in spyne."""

from spyne import Application, ServiceBase, Unicode, rpc
from spyne.protocol.soap import Soap11
from spyne.server.wsgi import WsgiApplication


class Echo(ServiceBase):
    """Answers what it was sent."""

    @rpc(Unicode, _returns=Unicode)
    def Echo(ctx, text):  # noqa: N802, N805, ANN001, ANN201, D102
        return text


app = WsgiApplication(
    Application([Echo], 'urn:bench', name='Bench', in_protocol=Soap11(validator='lxml'), out_protocol=Soap11())
)
