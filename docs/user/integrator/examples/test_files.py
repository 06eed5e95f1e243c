"""Test of `files.py`."""

from files import KeepInvoice, TotalOfJournal


def test_an_invoice_is_kept_once(arint, tmp_path):
    arint.files['invoices'] = tmp_path
    answer = arint.request(KeepInvoice, json={'number': '7', 'text': 'paid'})
    assert answer.status == 200, answer.error
    assert answer.data == {'path': '2026/7.txt', 'kept': ['7.txt']}
    assert (tmp_path / '2026/7.txt').read_text() == 'paid'
    again = arint.request(KeepInvoice, json={'number': '7', 'text': 'not paid'})
    assert again.status == 500 and again.error['type'] == 'FileExistsError'
    assert (tmp_path / '2026/7.txt').read_text() == 'paid'
    assert arint.invoke(TotalOfJournal).data == {'lines': 1}
