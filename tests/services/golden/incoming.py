from zato.server.service import Service


class Input(Service):
    name = 'req.input'
    input = '-name', '-id', '-page'

    def handle(self):
        self.response.payload = {'input': self.request.input, 'params': self.request.channel_params}


class NoDeclaration(Service):
    name = 'req.no-declaration'

    def handle(self):
        self.response.payload = dict(self.request.input)


class Raw(Service):
    name = 'req.raw'

    def handle(self):
        raw = self.request.raw_request
        self.response.payload = [type(raw).__name__ in ('str', 'BodyText'), raw, raw == self.request.text, raw.decode('utf8') == raw]


class Binary(Service):
    name = 'req.binary'

    def handle(self):
        self.response.payload = {'type': type(self.request.raw_request).__name__, 'length': len(self.request.raw_request)}


class Bunchified(Service):
    name = 'req.bunchified'

    def handle(self):
        bunch = self.request.bunchified()
        bunch.customer.name = 'changed'
        self.response.payload = [bunch.customer.name, self.request.payload['customer']['name'], self.request.to_bunch().n]


class Http(Service):
    name = 'req.http'

    def handle(self):
        http = self.request.http
        self.response.payload = {
            'method': http.method, 'path': http.path, 'GET': http.GET, 'params': http.params, 'POST': http.POST,
            'agent': http.user_agent, 'header': http.headers['x-own'], 'form': http.get_form_data(),
            'wsgi': [self.wsgi_environ[key] for key in ('REQUEST_METHOD', 'PATH_INFO', 'QUERY_STRING', 'HTTP_X_OWN')],
            'same': self.wsgi_environ is self.request.http._wsgi_environ,
        }


class About(Service):
    name = 'req.about'

    def handle(self):
        chan = self.chan
        self.response.payload = {
            'cid': [self.cid, self.request.cid], 'name': self.name, 'impl': self.impl_name, 'format': self.request.data_format,
            'transport': self.request.transport, 'environ': self.environ, 'job_type': self.job_type,
            'in_reply_to': self.in_reply_to, 'chan': [chan.name, chan.type, chan.data_format, chan.is_internal],
            'same': self.channel is chan, 'sec': [chan.security.name, chan.sec.username, chan.sec.type],
            'merge': self.request.merge_channel_params, 'hash': len(self.get_request_hash()),
        }


class Xml(Service):
    name = 'req.xml'

    def handle(self):
        order = self.request.payload
        self.response.payload = '|'.join([
            order.tag, order.get('id'), str(order.customer.name), str(order.total * 2), str(len(order.line)),
            order.line[1].sku.text, ','.join(line.sku.text for line in order.line), str(order.paid == True),
            order['{urn:n}note'].text, order.xpath('line/sku/text()')[0], order.find('customer/name').text,
            str(hasattr(order, 'missing')), repr(self.request.raw_request[:6]),
        ])


class XmlEcho(Service):
    name = 'req.xml-echo'

    def handle(self):
        self.response.payload = self.request.payload


class XmlInput(Service):
    name = 'req.xml-input'
    input = 'sku', 'item_count'

    def handle(self):
        self.response.payload = f'{self.request.input.sku} {self.request.input.item_count + 1}'


class Csv(Service):
    name = 'req.csv'

    def handle(self):
        self.response.payload = [[cell.upper() for cell in row] for row in self.request.payload]


class CsvInput(Service):
    name = 'req.csv-input'
    input = 'sku', 'item_count'
    output = 'sku', 'item_count'

    def handle(self):
        self.response.payload = [{'sku': row.sku, 'item_count': row.item_count + 1} for row in self.request.input]


class Form(Service):
    name = 'req.form'
    input = 'name', '-tag'

    def handle(self):
        self.response.payload = {'input': self.request.input, 'payload': self.request.payload}


class Hl7(Service):
    name = 'req.hl7'

    def handle(self):
        self.response.payload = self.request.raw_request.split('\r')[1]
