"""JSON Web Tokens, HS256, by hand: header.payload.signature."""

import base64
import hashlib
import hmac
import json

SECRET = b"a secret of thirty-two bytes....."


def _text(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(claims, secret=SECRET):
    payload = ".".join(_text(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return payload + "." + _text(hmac.new(secret, payload.encode(), hashlib.sha256).digest())


def key_set(secret=SECRET):
    return json.dumps({"keys": [{"kty": "oct", "alg": "HS256", "k": _text(secret)}]})
