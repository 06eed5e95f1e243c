from zato.server.service import AsIs, Bool, CSV, Date, DateTime, Decimal, Dict, DictList, Float, Int, List, Nested, \
    Opaque, Service, Text, UTC, UUID


class Wrapped(Service):
    name = 'sio.wrapped'

    class SimpleIO:
        input_required = ('customer_id', 'name')
        input_optional = ('is_active', 'note', 'page_size')
        output_required = ('id',)
        output_optional = ('name', 'note')

    def handle(self):
        given = self.request.input
        self.response.payload.id = given.customer_id
        self.response.payload.name = [type(given.customer_id).__name__, type(given.is_active).__name__, given.note]


class Renamed(Service):
    name = 'sio.renamed'

    class SimpleIO:
        response_elem = 'invoice'
        output = 'id', '-note'

    def handle(self):
        self.response.payload = {'id': 1, 'note': 'n', 'other': 'left out'}


class Bare(Service):
    name = 'sio.bare'

    class SimpleIO:
        response_elem = None
        output = 'id'

    def handle(self):
        self.response.payload.id = 1


class ClassLevel(Service):
    name = 'sio.class-level'
    input = 'name', '-title', AsIs('user_id')
    output = 'user_id', '-title'

    def handle(self):
        self.response.payload = {'user_id': 7, 'title': self.request.input.title}


class Inferred(Service):
    name = 'sio.inferred'
    input = 'id', 'a_count', 'a_id', 'a_size', 'a_size_min', 'a_size_max', 'a_timeout', \
        'by_x', 'has_x', 'is_x', 'may_x', 'needs_x', 'should_x', 'plain'

    def handle(self):
        self.response.payload = {name: type(value).__name__ for name, value in self.request.input.items()}


class Types(Service):
    name = 'sio.types'
    input = AsIs('as_is'), Bool('bool'), CSV('csv'), Date('date'), DateTime('datetime'), Decimal('decimal'), \
        Dict('dict', 'name', '-email', Int('age')), DictList('dict_list', 'sku'), Float('float'), Int('int'), \
        List('list'), Nested('nested', 'a', Dict('b', Int('c'))), Opaque('opaque'), Text('text'), UTC('utc'), UUID('uuid')
    output = input

    def handle(self):
        given = self.request.input
        self.logger.info('types %s', [type(value).__name__ for value in given.values()])
        self.response.payload = given


class TypeNames(Service):
    name = 'sio.type-names'
    input = Types.input

    def handle(self):
        self.response.payload = {name: type(value).__name__ for name, value in self.request.input.items()}


class DateFormat(Service):
    name = 'sio.date-format'
    input = Date('day', format='DD.MM.YYYY')
    output = Date('day', format='YYYY/MM/DD')

    def handle(self):
        self.response.payload.day = self.request.input.day


class Defaults(Service):
    name = 'sio.defaults'

    class SimpleIO:
        response_elem = None
        input_optional = ('a', Int('b', default=3))
        output_optional = ('a', 'b', 'c')
        default_input_value = 'in'
        default_output_value = 'out'

    def handle(self):
        self.response.payload = {'a': self.request.input.a, 'b': self.request.input.b}


class SkipEmpty(Service):
    name = 'sio.skip-empty'

    class SimpleIO:
        response_elem = None
        output_optional = ('a', 'b', 'c', 'd')
        skip_empty_keys = True
        force_empty_keys = ('c',)

    def handle(self):
        self.response.payload = {'a': '', 'b': 0, 'c': '', 'd': []}


class SkipSome(Service):
    name = 'sio.skip-some'

    class SimpleIO:
        response_elem = None
        output_optional = ('a', 'b')
        skip_empty_keys = 'a',

    def handle(self):
        self.response.payload = {'a': '', 'b': ''}


class SkipRequest(Service):
    name = 'sio.skip-request'

    class SimpleIO:
        input_optional = ('a', 'b')
        skip_empty_request_keys = True

    def handle(self):
        self.response.payload = {'got': sorted(self.request.input)}


class Repeated(Service):
    name = 'sio.repeated'

    class SimpleIO:
        output = 'id', 'name'
        output_repeated = True

    def handle(self):
        self.response.payload[:] = [{'id': number, 'name': str(number)} for number in range(2)]
        self.response.payload.append({'id': 9, 'name': 'nine'})


class Missing(Service):
    name = 'sio.missing'
    output = 'id', 'name'

    def handle(self):
        self.response.payload = {'id': 1}


class Undeclared(Service):
    name = 'sio.undeclared'

    class SimpleIO:
        output = 'id'

    def handle(self):
        self.response.payload.other = 1


class RequireAny(Service):
    name = 'sio.require-any'
    input = '-a', '-b'

    def handle(self):
        self.request.input.require_any('a', 'b')
        copy = self.request.input.deepcopy()
        copy.a = 'changed'
        self.response.payload = {'a': self.request.input.a, 'get': self.request.input.get('z', 'none')}


class Masked(Service):
    name = 'sio.masked'
    input = 'user', 'password', '-token'

    def handle(self):
        self.log_input('asked')
        self.response.payload = {'type': type(self.request.input.password).__name__}


class RequestElem(Service):
    name = 'sio.request-elem'

    class SimpleIO:
        request_elem = 'order'
        response_elem = None
        input_required = ('sku',)
        output = 'sku'

    def handle(self):
        self.response.payload.sku = self.request.input.sku
