"""Test of `settings.py`."""

from settings import Ticket


def test_a_ticket_does_not_show_what_is_in_it(arint):
    arint.configure({'tickets': {'limits': {'most': '7'}}})
    answer = arint.invoke(Ticket)
    assert answer.status == 200, answer.error
    assert answer.data['most'] == 7 and answer.data['ticket']
