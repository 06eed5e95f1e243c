"""Test of `rest_out.py`."""

from rest_out import Customer


def test_the_answer_is_used(arint):
    arint.rest['CRM'].configured(url_path='/customers/{id}').answers(json={'name': 'Anna'})
    assert arint.request(Customer, json={'id': '7'}).data == {'name': 'Anna'}
    call, = arint.rest['CRM'].calls
    assert (call.method, call.path_params, call.query) == ('GET', {'id': '7'}, [('fields', 'name')])


def test_an_unknown_customer_is_404(arint):
    arint.rest['CRM'].configured(url_path='/customers/{id}').answers(status=404)
    assert arint.request(Customer, json={'id': '7'}).status == 404


def test_a_crm_that_is_away_is_503(arint):
    arint.rest['CRM'].configured(url_path='/customers/{id}').fails('connection')
    answer = arint.request(Customer, json={'id': '7'})
    assert (answer.status, answer.data) == (503, {'reason': 'the CRM is away'})
