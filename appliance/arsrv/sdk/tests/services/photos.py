# -*- coding: utf-8 -*-

# Zato
from zato.server.service import AsIs, Int, List, Service

PHOTOS = {
    7: {'photo_id': 7, 'title': 'Harbour', 'tags': ['sea', 'boats']},
    8: {'photo_id': 8, 'title': 'Mountain', 'tags': []},
}


class GetPhoto(Service):
    """ Returns one photo by its ID.

    Looked up in the catalogue.
    """
    class SimpleIO:
        input_required = 'photo_id'
        input_optional = ('size', 'is_thumbnail')
        output_required = ('photo_id', 'title')
        output_optional = (List('tags'), 'size')

    def handle(self):
        self.logger.info('Looking up photo %s for %s', self.request.input.photo_id, self.cid)
        photo = PHOTOS[self.request.input.photo_id]

        self.response.payload.photo_id = photo['photo_id']
        self.response.payload.title = photo['title']
        self.response.payload.tags = photo['tags']
        self.response.payload.size = self.request.input.get('size')


class GetHTTPData(Service):
    def handle(self):
        self.response.payload = {'name': self.name, 'impl': self.impl_name}


class ListPhotos(Service):
    class SimpleIO:
        output_required = ('photo_id', 'title')
        output_repeated = True

    def handle(self):
        self.response.payload[:] = [PHOTOS[key] for key in sorted(PHOTOS)]


class FindByUser(Service):
    name = 'photos.find.by-user'

    input = AsIs('user_id'), '-page_size'
    output = 'user_id', Int('page_size')

    def handle(self):
        self.response.payload = {
            'user_id': self.request.input.user_id,
            'page_size': self.request.input.page_size or 10,
            'not_declared': 'dropped',
        }
