"""What a request and an answer have in common."""

import json


class Message:
    """Headers in their order, the body's bytes, and the trailers behind it."""

    def __init__(self, headers):
        self.headers = headers
        self.body = b""
        self.trailers = []

    def all(self, name):
        return [value for key, value in self.headers if key.lower() == name]

    def header(self, name):
        values = self.all(name)
        return values[0] if values else None

    def json(self):
        return json.loads(self.body)


def fields(lines):
    """The names and values of header or trailer lines."""
    return [tuple(part.strip() for part in line.split(":", 1)) for line in lines]
