"""Held headers in an Envoy that does not show the body meanwhile: the request hangs, and the log names the cure."""

import pytest

from harness import envoy
from harness.config import budget, plugin_config
from harness.http import head
from harness.rig import CHAT, chat_body
from harness.wait import until

CURE = "`hold_headers: true` needs `allow_on_headers_stop_iteration: true`"


def start(start_rig, flag):
    def change(doc):
        envoy.render.wasm_config(doc)["allow_on_headers_stop_iteration"] = flag

    return start_rig(plugin_config({"gold": {"budget": budget(1_000)}}), change=change, concurrency=1)


def leave(rig, sent):
    """A request of which the client sends so much of the body, and whose answer it does not wait for."""
    body, test_id = chat_body(), rig.new_id()
    headers = rig.headers(rig.tenant("gold"), test_id, more=[("content-length", len(body))])
    before = rig.envoy.read_from_clients()
    with rig.connect() as connection:
        request = head("POST", CHAT, headers) + body[:sent]
        connection.send(request)
        until(lambda: rig.envoy.read_from_clients() >= before + len(request), "Envoy to read the request")
    rig.envoy.logged(test_id)


@pytest.mark.parametrize("flag, sent, cures", [(False, None, 1), (False, 10, 1), (False, 0, 0), (True, 10, 0), (True, 0, 0)])
def test_a_body_that_is_not_shown_while_headers_are_held_is_logged_with_the_cure_once(start_rig, flag, sent, cures):
    rig = start(start_rig, flag)
    for _ in range(2):
        leave(rig, sent)
    # The next request's entry in the access log comes after all that was logged of these.
    rig.log(rig.get("/"))
    assert rig.envoy.log().count(CURE) == cures
