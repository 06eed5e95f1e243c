"""Test of `schemas.py`."""

from schemas import Register


def test_what_fits_is_taken(arint):
    assert arint.request(Register, json={'mail': 'a@b', 'age': 20}).data == {'registered': 'a@b'}


def test_what_does_not_fit_is_refused(arint):
    for bad in ({}, {'mail': 'a@b', 'age': 3}, {'mail': 'a@b', 'more': 1}):
        assert arint.request(Register, json=bad).status == 400, bad
