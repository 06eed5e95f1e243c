"""The pytest plug-in, as those who write services use it: with no node, no core and no worker."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SDK = Path(__file__).resolve().parent.parent / "src"

SERVICES = '''
"""Services under test."""

from dataclasses import dataclass

from zato.server.service import Model, Service


@dataclass(init=False)
class Order(Model):
    customer_id: int
    item: str


class CreateOrder(Service):
    """Books an order."""

    name = 'orders.create'
    input = Order

    def handle(self):
        self.logger.info('booking %s', self.request.input.item)
        answer = self.out.rest['CRM'].conn.post(
            self.cid, {'item': self.request.input.item}, {'customer': self.request.input.customer_id})
        if answer.status_code != 201:
            raise Exception('the CRM said', answer.status_code)
        stock = self.invoke('stock.count', {'item': self.request.input.item})
        self.invoke_async('orders.audit', {'id': answer.data['id']})
        self.response.headers['X-Order'] = answer.data['id']
        self.response.payload = {'order_id': answer.data['id'], 'left': stock['left']}


class Audit(Service):
    name = 'orders.audit'

    def handle(self):
        self.response.payload = {'seen': self.request.raw_request}


class Outer(Service):
    name = 'orders.outer'

    def handle(self):
        self.response.payload = {'inner': self.invoke('orders.audit', {'a': 1})}


class Verbs(Service):
    name = 'orders.verbs'

    def handle_GET(self):
        params = self.request.http.params
        self.response.payload = {'id': params.id, 'size': self.request.http.GET['size'], 'who': self.channel.security.username}


class Counting(Service):
    name = 'orders.counting'

    def handle(self):
        self.response.payload = (b'x' * 100_000 for _ in range(9))


class Later(Service):
    name = 'orders.coroutine'

    async def handle(self):
        answer = await self.aio.rest['CRM'].get()
        self.response.payload = {'status': answer.status_code}


class Rows(Service):
    name = 'orders.rows'

    def handle(self):
        from contextlib import closing
        from sqlalchemy import text
        with closing(self.outgoing.sql['shop'].session()) as session:
            session.execute(text('create table t (a integer)'))
            session.execute(text('insert into t values (7)'))
            session.commit()
            self.response.payload = {'a': session.execute(text('select a from t')).scalar()}


class Secret(Service):
    name = 'orders.secret'

    def handle(self):
        token = self.crypto.encrypt('plain')
        self.response.payload = {'is_same': token == 'plain', 'back': self.crypto.decrypt(token)}
'''


def run(tmp_path: Path, tests: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Runs tests in a folder and a process of their own, as a person would."""
    (tmp_path / "orders.py").write_text(SERVICES, encoding="utf-8")
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["arint.testing"]\n', encoding="utf-8")
    (tmp_path / "test_orders.py").write_text("from orders import *\n" + textwrap.dedent(tests), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args],
        cwd=tmp_path,
        env={"PYTHONPATH": str(SDK), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_service_is_run_with_its_model_its_connection_and_the_services_it_invokes(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        '''
        import pytest

        def test_it_books(arint, caplog):
            caplog.set_level('INFO')
            arint.rest['CRM'].configured(url_path='/c/{customer}/orders').answers(json={'id': 4711}, status=201)
            arint.services['stock.count'].answers({'left': 3})
            answer = arint.request(CreateOrder, json={'customer_id': 7, 'item': 'A'}, method='POST')
            assert (answer.status, answer.error) == (200, None)
            assert answer.data == {'order_id': 4711, 'left': 3}
            assert answer.headers == {'X-Order': '4711'}
            call, = arint.rest['CRM'].calls
            assert (call.method, call.json, call.path_params) == ('POST', {'item': 'A'}, {'customer': '7'})
            assert arint.services['stock.count'].calls == [{'item': 'A'}]
            assert arint.later[0]['what']['invoke']['target'] == {'service': 'orders.audit', 'payload': {'id': 4711}}
            assert 'booking A' in caplog.text

        def test_bad_input_is_refused_as_on_a_node(arint):
            answer = arint.request(CreateOrder, json={'customer_id': 7})
            assert answer.status == 400
            assert answer.error['type'] == 'ModelValidationError'

        @pytest.mark.parametrize('kind', ['connection', 'timeout', 'refused', 'circuit-open'])
        def test_what_goes_wrong_outside_can_be_tried(arint, kind):
            arint.rest['CRM'].fails(kind)
            answer = arint.request(CreateOrder, json={'customer_id': 7, 'item': 'A'})
            assert answer.status >= 500 and 'declared by the test' in answer.error['message']

        def test_answers_come_one_after_another_and_the_last_stays(arint):
            arint.rest['CRM'].answers(status=500).answers(json={'id': 1}, status=201)
            arint.services['stock.count'].answers({'left': 0})
            send = lambda: arint.request(CreateOrder, json={'customer_id': 7, 'item': 'A'}).status
            assert [send(), send(), send()] == [500, 200, 200]

        def test_a_function_may_answer(arint):
            arint.rest['CRM'].answers_with(lambda call: (201, {'id': call.json['item'] * 2}))
            arint.services['stock.count'].answers({'left': 0})
            assert arint.request(CreateOrder, json={'customer_id': 7, 'item': 'A'}).data['order_id'] == 'AA'

        def test_services_of_the_module_invoke_each_other(arint):
            assert arint.invoke(Outer).data == {'inner': {'seen': {'a': 1}}}
            assert arint.invoke('orders.audit', [1, 2]).data == {'seen': [1, 2]}

        def test_verbs_parameters_and_callers(arint):
            answer = arint.request(Verbs, params={'id': '7'}, query={'size': 'big'}, security={'id': 1, 'name': 'crm', 'type': 'basic_auth', 'username': 'crm'})
            assert answer.data == {'id': '7', 'size': 'big', 'who': 'crm'}
            assert arint.request(Verbs, method='POST').status == 405

        def test_streams_and_coroutines(arint):
            arint.rest['CRM'].answers(status=204)
            assert len(arint.request(Counting).body) == 900_000
            assert arint.request(Later).data == {'status': 204}
            assert arint.request(Later).data == {'status': 204}

        def test_databases_and_crypto(arint, tmp_path):
            arint.sql['shop'] = f'sqlite:///{tmp_path}/shop.db'
            assert arint.invoke(Rows).data == {'a': 7}
            assert arint.invoke(Secret).data == {'is_same': False, 'back': 'plain'}
        ''',
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 passed" in done.stdout, done.stdout


def test_what_a_test_has_not_declared_fails_with_what_to_do(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        '''
        def test_connection(arint):
            error = arint.request(CreateOrder, json={'customer_id': 7, 'item': 'A'}).error
            assert error['message'] == (
                'KeyError: "outgoing connection `CRM` is not declared in this test: '
                "use `arint.rest['CRM'].answers(…)`\\""), error

        def test_service(arint):
            arint.rest['CRM'].answers(json={'id': 1}, status=201)
            error = arint.request(CreateOrder, json={'customer_id': 7, 'item': 'A'}).error
            assert 'service `stock.count` is neither loaded nor declared in this test' in error['message'], error

        def test_declarations_do_not_outlive_their_test(arint):
            assert dict(arint.rest) == {} and arint.later == []
            try:
                arint.invoke('no.such')
            except KeyError as exc:
                assert 'service `no.such` is not loaded in this test' in str(exc)

        def test_a_class_that_could_not_be_deployed(arint):
            class Local(Service):
                def handle(self):
                    pass
            try:
                arint.invoke(Local)
            except TypeError as exc:
                assert '`Local` is no service that could be deployed' in str(exc)
            else:
                raise AssertionError
        ''',
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_file_is_loaded_with_the_checks_of_a_deployment(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        '''
        import pathlib
        import pytest
        from arint.loader import LoadError

        def test_load(arint, tmp_path):
            arint.load(pathlib.Path(__file__).with_name('orders.py'))
            assert arint.invoke('orders.audit', 'x').data == {'seen': 'x'}
            bad = tmp_path / 'bad.py'
            bad.write_text('from zato.server.service import Service\\nclass A(Service):\\n    name = "ARx"\\n    def handle(self): pass\\n')
            with pytest.raises(LoadError, match='kept for the producer'):
                arint.load(bad)
        ''',
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["", "nonsense"])
def test_an_unknown_failure_is_refused_with_those_there_are(kind: str) -> None:
    from arint.testing import FakeConnection

    with pytest.raises(ValueError, match="is not a kind of failure: connection, timeout, inactive, circuit-open or refused"):
        FakeConnection("CRM").fails(kind)
