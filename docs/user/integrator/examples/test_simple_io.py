"""Test of `simple_io.py`."""

from simple_io import Price


def test_input_is_typed_and_output_is_what_was_declared(arint):
    answer = arint.request(Price, json={'customer': 'anna', 'amount': '7', 'codes': ['a', 'b'], 'unknown': 1})
    assert answer.data == {'customer': 'anna', 'total': 14, 'currency': 'EUR'}


def test_what_is_missing_is_named(arint):
    answer = arint.request(Price, json={'amount': 7, 'codes': []})
    assert answer.status == 400 and 'customer' in answer.error['message']
