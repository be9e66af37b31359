"""Gemini's generateContent and streamGenerateContent, also at Vertex AI: https://ai.google.dev/api/generate-content"""

import json

from .answer import Answer, Refused, conversation, message_tokens, positive, within
from .call import Json, Stream, events

STATUSES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND"}
MOST_CANDIDATES = 8


def error(refused):
    status = STATUSES.get(refused.status, "INVALID_ARGUMENT")
    return Json({"error": {"code": refused.status, "message": str(refused), "status": status}})


def generate(call):
    """The answer. A stream is sent as events with `alt=sse`, else as one JSON array."""
    body = call.body
    options = within(body, "generationConfig") or within(body, "generation_config")
    limit = positive(options.get("maxOutputTokens") or options.get("max_output_tokens"), "maxOutputTokens")
    candidates = positive(options.get("candidateCount"), "candidateCount") or 1
    if candidates > MOST_CANDIDATES:
        raise Refused(400, f"candidateCount: at most {MOST_CANDIDATES}")
    system = body.get("systemInstruction") or body.get("system_instruction")
    contents = [body["contents"]] if isinstance(body.get("contents"), (str, dict)) else conversation(body, "contents")
    answer = Answer(message_tokens(*([system] if system else []), *contents), limit, candidates)
    if call.verb != "streamGenerateContent":
        return Json(part(answer, call.model, range(candidates), answer.text, answer.output_tokens, finish(answer)))
    if call.query.get("alt") == "sse":
        return events(parts(answer, call.model), end="\r\n\r\n")
    return Stream("application/json", array(parts(answer, call.model)))


def finish(answer):
    return "MAX_TOKENS" if answer.is_cut else "STOP"


def part(answer, model, indexes, text, so_far, reason=None):
    finished = {"finishReason": reason} if reason else {}
    return {"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "index": index, **finished} for index in indexes],
            "usageMetadata": {"promptTokenCount": answer.input_tokens, "candidatesTokenCount": so_far,
                              "totalTokenCount": answer.input_tokens + so_far},
            "modelVersion": model, "responseId": f"standin-{answer.number}"}


def parts(answer, model):
    """The chunks of a stream, each with the usage so far."""
    everyone = range(answer.choices)
    for text, so_far in answer.deltas():
        yield part(answer, model, everyone, text, so_far * answer.choices)
    yield part(answer, model, everyone, "", answer.output_tokens, finish(answer))


def array(values):
    """A JSON array that arrives element by element."""
    before = "["
    for value in values:
        yield (before + json.dumps(value)).encode()
        before = ",\r\n"
    yield b"]"
