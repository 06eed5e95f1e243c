"""Files: a folder of the box by `self.out.files`."""

from arint import Service


class KeepInvoice(Service):
    """Keeps an invoice that is not there yet."""

    name = 'invoices.keep'
    input = 'number', 'text'
    output = 'path', 'kept'

    def handle(self):
        folder = self.out.files['invoices'].conn
        folder.create_directory('2026')
        path = f'2026/{self.request.input.number}.txt'
        folder.write(path, self.request.input.text, overwrite=False)
        folder.append('journal.csv', f'{self.request.input.number};{self.cid}\n')
        self.response.payload = {'path': path, 'kept': [entry.name for entry in folder.list('2026', '*.txt')]}


class TotalOfJournal(Service):
    """Counts the lines of a file that may be larger than memory."""

    name = 'invoices.total'

    def handle(self):
        pieces = self.out.files['invoices'].read_chunks('journal.csv')
        self.response.payload = {'lines': sum(piece.count(b'\n') for piece in pieces)}
