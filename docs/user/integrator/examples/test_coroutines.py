"""Test of `coroutines.py`."""

from coroutines import Both


def test_both_are_asked(arint):
    arint.rest['one'].answers(json={'n': 1})
    arint.rest['other'].answers(json={'n': 2})
    assert arint.request(Both).data == {'one': 1, 'other': 2}
