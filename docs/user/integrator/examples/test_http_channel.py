"""Test of `http_channel.py`."""

from http_channel import Documents


def test_get_answers_text_with_a_header(arint):
    answer = arint.request(Documents, params={'id': '7'}, query={'language': 'de'})
    assert (answer.text, answer.content_type) == ('document 7', 'text/plain; charset=utf-8')
    assert answer.headers == {'X-Language': 'de'}


def test_delete_answers_nothing_and_put_is_not_allowed(arint):
    answer = arint.request(Documents, method='DELETE', params={'id': '7'})
    assert (answer.status, answer.body) == (204, b'')
    assert arint.request(Documents, method='PUT', params={'id': '7'}).status == 405
