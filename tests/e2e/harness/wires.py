"""What each provider's API answers, whole and streamed, in the shapes of its reference (read 2026-11-22).

For the APIs that aimock does not serve, or not as the real ones do. Each function makes an `Answer` that reports
`reported`, a pair of input and output tokens.
"""

import json

from . import eventstream
from .answers import DONE, Answer, event

WORDS = ("Hello", "! How can I ", "help you ", "today?")
TEXT = "".join(WORDS)


def _json(body):
    return Answer(json.dumps(body).encode(), headers=[("content-type", "application/json")])


def _sse(events):
    return Answer(events, headers=[("content-type", "text/event-stream")], framing="chunked")


def _frames(frames):
    return Answer(frames, headers=[("content-type", "application/vnd.amazon.eventstream")], framing="chunked")


# --- OpenAI: https://platform.openai.com/docs/api-reference ---


def completion(reported, stream):
    def part(text, **rest):
        return dict({"id": "cmpl-1", "object": "text_completion", "created": 1700000000, "model": "m",
                     "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": None}]}, **rest)

    given, made = reported
    usage = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
    if not stream:
        return _json(part(TEXT, usage=usage))
    last = part("", choices=[], usage=usage)
    return _sse([event(part(word, usage=None)) for word in WORDS] + [event(last), DONE])


def embedding(reported, _stream):
    vector = {"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}
    return _json({"object": "list", "model": "m", "data": [vector],
                  "usage": {"prompt_tokens": reported[0], "total_tokens": reported[0]}})


# --- Anthropic: https://docs.anthropic.com/en/api/messages-streaming ---


def message(reported, stream):
    if stream:
        return _sse([f"event: {each['type']}\n".encode() + event(each) for each in _message_events(reported)])
    return _json(_message([{"type": "text", "text": TEXT}], "end_turn", *reported))


def _message(content, stop, given, made):
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content,
            "stop_reason": stop, "stop_sequence": None, "usage": {"input_tokens": given, "output_tokens": made}}


def _message_events(reported):
    given, made = reported
    return [
        {"type": "message_start", "message": _message([], None, given, 1)},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in WORDS),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
         "usage": {"output_tokens": made}},
        {"type": "message_stop"},
    ]


# --- Gemini: https://ai.google.dev/api/generate-content ---


def gemini(reported, stream):
    def part(text, given, made, **rest):
        return {"candidates": [dict({"index": 0, "content": {"role": "model", "parts": [{"text": text}]}}, **rest)],
                "modelVersion": "m", "responseId": "r-1",
                "usageMetadata": {"promptTokenCount": given, "candidatesTokenCount": made,
                                  "totalTokenCount": given + made}}

    given, made = reported
    if not stream:
        return _json(part(TEXT, given, made, finishReason="STOP"))
    events = [part(word, given, index + 1) for index, word in enumerate(WORDS)]
    # Google ends the lines of its events with CRLF.
    return _sse([event(each).replace(b"\n", b"\r\n")
                 for each in events + [part("", given, made, finishReason="STOP")]])


# --- Bedrock: https://docs.aws.amazon.com/bedrock/latest/APIReference ---


def invoke(reported, stream):
    """`invoke` of an Anthropic model."""
    given, made = reported
    if not stream:
        answer = message(reported, stream)
        answer.headers += [("x-amzn-bedrock-input-token-count", given), ("x-amzn-bedrock-output-token-count", made)]
        return answer
    events = _message_events(reported)
    events[-1]["amazon-bedrock-invocationMetrics"] = {
        "inputTokenCount": given, "outputTokenCount": made, "invocationLatency": 500, "firstByteLatency": 200}
    return _frames([eventstream.chunk(each) for each in events])


def converse(reported, stream):
    given, made = reported
    usage = {"inputTokens": given, "outputTokens": made, "totalTokens": given + made}
    if not stream:
        return _json({"output": {"message": {"role": "assistant", "content": [{"text": TEXT}]}},
                      "stopReason": "end_turn", "usage": usage, "metrics": {"latencyMs": 500}})
    return _frames([
        eventstream.event("messageStart", {"role": "assistant"}),
        *(eventstream.event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": word}}) for word in WORDS),
        eventstream.event("contentBlockStop", {"contentBlockIndex": 0}),
        eventstream.event("messageStop", {"stopReason": "end_turn"}),
        eventstream.event("metadata", {"usage": usage, "metrics": {"latencyMs": 500}}),
    ])
