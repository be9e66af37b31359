"""OpenAI's chat completions, completions and embeddings, also as Azure, Mistral and many others serve them.

https://platform.openai.com/docs/api-reference
"""

import base64
import struct
import time

from .answer import Answer, Refused, conversation, message_tokens, positive, prompt_tokens
from .call import Json, events

MODELS = ("gpt-4o", "gpt-4.1-mini", "gpt-4o-mini")
COMPLETION_LIMIT = 16   # tokens, where a completion names none
DIMENSIONS = 8
MOST_CHOICES = 128   # as many as the API allows


def error(refused):
    return Json({"error": {"message": str(refused), "type": "invalid_request_error", "param": None, "code": refused.code}})


def models(_):
    """GET /v1/models"""
    return Json({"object": "list",
                 "data": [{"id": each, "object": "model", "created": 0, "owned_by": "standin"} for each in MODELS]})


def chat(call):
    body, model = call.body, call.named_model()
    limit = [positive(body.get(name), name) for name in ("max_tokens", "max_completion_tokens")]
    prompt = message_tokens(*(each.get("content") for each in conversation(body)))
    answer = Answer(prompt, limit[0] or limit[1], choices(body))
    common = {"id": f"chatcmpl-standin-{answer.number}", "created": int(time.time()), "model": model}
    if body.get("stream"):
        return events(chat_chunks(answer, common, wants_usage(call)))
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    return Json({**common, "object": "chat.completion", "usage": usage(answer), "choices": [
        {"index": i, "message": message, "logprobs": None, "finish_reason": finish(answer)} for i in range(answer.choices)]})


def chat_chunks(answer, common, with_usage):
    def deltas():
        yield {"role": "assistant", "content": ""}, None
        for text, _ in answer.deltas():
            yield {"content": text}, None
        yield {}, finish(answer)

    return chunks(answer, {**common, "object": "chat.completion.chunk"}, with_usage, (
        {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        for index in range(answer.choices) for delta, reason in deltas()))


def chunks(answer, common, with_usage, choices):
    """The chunks of a stream. If usage was requested, it is in an additional last chunk, and `usage` is null in all others."""
    no_usage = {"usage": None} if with_usage else {}
    for choice in choices:
        yield {**common, "choices": [choice], **no_usage}
    if with_usage:
        yield {**common, "choices": [], "usage": usage(answer)}
    yield "[DONE]"


def completions(call):
    body, model = call.body, call.named_model()
    limit = positive(body.get("max_tokens"), "max_tokens") or COMPLETION_LIMIT
    prompts = body.get("prompt")
    answers = len(prompts) if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int) else 1
    answer = Answer(prompt_tokens(prompts), limit, choices(body) * answers)
    common = {"id": f"cmpl-standin-{answer.number}", "object": "text_completion", "created": int(time.time()), "model": model}

    def choice(index, text, reason):
        return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}

    if body.get("stream"):
        return events(chunks(answer, common, wants_usage(call), (
            each for index in range(answer.choices)
            for each in [*(choice(index, text, None) for text, _ in answer.deltas()), choice(index, "", finish(answer))])))
    return Json({**common, "usage": usage(answer),
                 "choices": [choice(index, answer.text, finish(answer)) for index in range(answer.choices)]})


def embeddings(call):
    body, model = call.body, call.named_model()
    given = body.get("input")
    count = prompt_tokens(given)
    size = positive(body.get("dimensions"), "dimensions") or DIMENSIONS
    inputs = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    vector = [1.0] + [0.0] * (min(size, 4096) - 1)
    if body.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    return Json({"object": "list", "model": model, "usage": {"prompt_tokens": count, "total_tokens": count},
                 "data": [{"object": "embedding", "index": index, "embedding": vector} for index in range(len(inputs))]})


# --- shared by these APIs ---


def wants_usage(call):
    """Whether a stream reports usage. Mistral's streams do so without a request for it."""
    options = call.body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True or call.verb is not None


def choices(body):
    count = positive(body.get("n"), "n") or 1
    if count > MOST_CHOICES:
        raise Refused(400, f"Invalid 'n': expected at most {MOST_CHOICES}.", "integer_above_max_value")
    return count


def finish(answer):
    return "length" if answer.is_cut else "stop"


def usage(answer):
    return {"prompt_tokens": answer.input_tokens, "completion_tokens": answer.output_tokens,
            "total_tokens": answer.total_tokens, "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0}}
