"""Test of `errors.py`."""

from errors import Withdraw


def test_each_fault_has_its_status_and_its_sentence(arint):
    send = lambda account, amount: arint.request(Withdraw, json={'account': account, 'amount': amount})
    assert send('anna', '30').data == {'left': 70}
    assert (send('eve', '1').status, send('eve', '1').error['details']) == (404, 'there is no such account')
    assert (send('anna', 'x').status, send('anna', 'x').error['details']) == (400, '`x` is not an amount')
