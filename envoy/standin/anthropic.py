"""Anthropic's Messages, also as Vertex AI and Bedrock serve them: https://docs.anthropic.com/en/api/messages"""

from .answer import Answer, Refused, conversation, message_tokens, positive
from .call import Json, events

ERROR_TYPES = {404: "not_found_error", 413: "request_too_large"}


def error(refused):
    return Json({"type": "error", "error": {"type": ERROR_TYPES.get(refused.status, "invalid_request_error"),
                                            "message": str(refused)}})


def messages(call):
    model = call.named_model()
    answer = answer_to(call.body)
    if call.body.get("stream") or (call.verb or "").startswith("stream"):
        return events(stream(answer, model), named=True)
    return Json(whole(answer, model))


def answer_to(body):
    limit = positive(body.get("max_tokens"), "max_tokens")
    if limit is None:
        raise Refused(400, "max_tokens: Field required")
    system = [body["system"]] if body.get("system") else []
    return Answer(message_tokens(*system, *(each.get("content") for each in conversation(body))), limit)


def whole(answer, model):
    return message(answer, model, [{"type": "text", "text": answer.text}], stop(answer), answer.output_tokens)


def stop(answer):
    return "max_tokens" if answer.is_cut else "end_turn"


def message(answer, model, content, stop_reason, output_tokens):
    return {"id": f"msg_standin_{answer.number}", "type": "message", "role": "assistant", "model": model,
            "content": content, "stop_reason": stop_reason, "stop_sequence": None,
            "usage": {"input_tokens": answer.input_tokens, "cache_creation_input_tokens": 0,
                      "cache_read_input_tokens": 0, "output_tokens": output_tokens}}


def stream(answer, model):
    """The events of a stream. The first one has the prompt's tokens, the last but one the answer's tokens."""
    yield {"type": "message_start", "message": message(answer, model, [], None, 1)}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    yield {"type": "ping"}
    for text, _ in answer.deltas():
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    yield {"type": "content_block_stop", "index": 0}
    yield {"type": "message_delta", "delta": {"stop_reason": stop(answer), "stop_sequence": None},
           "usage": {"output_tokens": answer.output_tokens}}
    yield {"type": "message_stop"}
