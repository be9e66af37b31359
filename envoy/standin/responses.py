"""OpenAI's Responses: https://platform.openai.com/docs/api-reference/responses"""

import time

from .answer import Answer, Refused, conversation, message_tokens, positive
from .call import Json, events


def responses(call):
    body, model = call.body, call.named_model()
    answer = Answer(given(body), positive(body.get("max_output_tokens"), "max_output_tokens"))
    response = {
        "id": f"resp_standin_{answer.number}", "object": "response", "created_at": int(time.time()), "model": model,
        "error": None, "instructions": body.get("instructions"), "metadata": {}, "parallel_tool_calls": True,
        "temperature": 1.0, "top_p": 1.0, "tools": [], "tool_choice": "auto", "previous_response_id": None,
        "max_output_tokens": body.get("max_output_tokens")}
    if body.get("stream"):
        return events(numbered(stream(answer, response)), named=True)
    return Json(finished(answer, response))


def given(body):
    """Tokens of `input`, which is a text or a list of items, and of `instructions`."""
    contents = [body["instructions"]] if isinstance(body.get("instructions"), str) else []
    if isinstance(body.get("input"), str):
        return message_tokens(*contents, body["input"])
    items = conversation(body, "input")
    if any("content" in item and not isinstance(item["content"], (str, list)) for item in items):
        raise Refused(400, "Invalid 'input': content is neither a text nor a list.", "invalid_type")
    return message_tokens(*contents, *(item.get("content") or item.get("output") for item in items))


def part(text):
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def item(answer, status, content):
    return {"id": f"msg_standin_{answer.number}", "type": "message", "role": "assistant", "status": status, "content": content}


def finished(answer, response):
    status = "incomplete" if answer.is_cut else "completed"
    usage = {"input_tokens": answer.input_tokens, "input_tokens_details": {"cached_tokens": 0},
             "output_tokens": answer.output_tokens, "output_tokens_details": {"reasoning_tokens": 0},
             "total_tokens": answer.total_tokens}
    return {**response, "status": status, "output": [item(answer, status, [part(answer.text)])], "usage": usage,
            "incomplete_details": {"reason": "max_output_tokens"} if answer.is_cut else None}


def stream(answer, response):
    begun = {**response, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    whole = finished(answer, response)
    (message,) = whole["output"]
    of_item = {"output_index": 0}
    of_part = {"item_id": message["id"], "output_index": 0, "content_index": 0}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    yield {"type": "response.output_item.added", **of_item, "item": item(answer, "in_progress", [])}
    yield {"type": "response.content_part.added", **of_part, "part": part("")}
    for text, _ in answer.deltas():
        yield {"type": "response.output_text.delta", **of_part, "delta": text, "logprobs": []}
    yield {"type": "response.output_text.done", **of_part, "text": answer.text, "logprobs": []}
    yield {"type": "response.content_part.done", **of_part, "part": part(answer.text)}
    yield {"type": "response.output_item.done", **of_item, "item": message}
    yield {"type": f"response.{whole['status']}", "response": whole}


def numbered(values):
    for number, value in enumerate(values):
        yield {**value, "sequence_number": number}
