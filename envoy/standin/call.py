"""A request as an API's code gets it, and the replies that this code may return."""

import json
from dataclasses import dataclass, field

from .answer import Refused


@dataclass
class Call:
    """A request. `model` and `verb` (`streamGenerateContent`, `converse-stream` ...) come from the path, if it contains them."""

    method: str
    path: str
    query: dict
    body: dict
    model: str = None
    verb: str = None

    def named_model(self):
        """The model in the path, else the one in the body."""
        model = self.model or self.body.get("model")
        if not isinstance(model, str):
            raise Refused(400, "you must provide a model parameter")
        return model


@dataclass
class Json:
    value: dict
    headers: dict = field(default_factory=dict)
    status: int = 200


@dataclass
class Stream:
    """A reply. `parts`: pieces of bytes, each of which is sent separately."""

    content_type: str
    parts: object
    headers: dict = field(default_factory=dict)


def parse_body(data):
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise Refused(400, "We could not parse the JSON body of your request.") from None
    if not isinstance(body, dict):
        raise Refused(400, "The body must be a JSON object.")
    return body


def events(values, named=False, end="\n\n"):
    """Server-sent events: each value as JSON, or unchanged if it is a text. `named`: whether each event names its type."""
    def encode(value):
        name = f"event: {value['type']}\n" if named else ""
        return f"{name}data: {value if isinstance(value, str) else json.dumps(value)}{end}".encode()
    return Stream("text/event-stream", map(encode, values), {"cache-control": "no-cache"})
