"""What a request and an answer have in common."""

import json


class Message:
    """Headers in their order, and the body's bytes."""

    def __init__(self, headers):
        self.headers = headers
        self.body = b""

    def all(self, name):
        return [value for key, value in self.headers if key.lower() == name]

    def header(self, name):
        values = self.all(name)
        return values[0] if values else None

    def json(self):
        return json.loads(self.body)
