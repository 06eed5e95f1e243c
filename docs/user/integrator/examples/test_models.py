"""Test of `models.py`."""

from models import Book


def test_nested_models_are_read_with_their_defaults(arint):
    order = {'customer': 'anna', 'items': [{'code': 'a'}, {'code': 'b', 'count': 4}]}
    assert arint.request(Book, json=order).data == {'customer': 'anna', 'pieces': 5}


def test_a_fault_names_the_field(arint):
    answer = arint.request(Book, json={'customer': 'anna', 'items': [{'count': 1}]})
    assert answer.status == 400 and 'code' in answer.error['message']
