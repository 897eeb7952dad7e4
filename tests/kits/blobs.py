"""A dictionary of blobs that stands for the records of a collection."""


class Blobs(dict):
    """{(name, part): content}."""

    def keep(self, blobs):
        self.update({(name, part): blob.content for name, part, blob in blobs})

    def blob(self, name, part=0):
        return self.get((name, part))
