"""Amazon Bedrock's Converse, and InvokeModel for several vendors' bodies.

https://docs.aws.amazon.com/bedrock/latest/APIReference and https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html
"""

from . import anthropic, openai
from .answer import Answer, Refused, conversation, message_tokens, positive, prompt_tokens, within
from .call import Json, Stream
from .eventstream import CONTENT_TYPE, chunk, event

ERROR_TYPES = {404: "ResourceNotFoundException"}
LATENCY = {"latencyMs": 1}


def error(refused):
    return Json({"message": str(refused)}, {"x-amzn-errortype": ERROR_TYPES.get(refused.status, "ValidationException")})


# --- Converse ---


def converse(call):
    answer = converse_answer(call.body, "maxTokens")
    if call.verb == "converse":
        return Json(converse_whole(answer))
    return Stream(CONTENT_TYPE, (event(kind, payload) for kind, payload in converse_events(answer)))


def converse_answer(body, limit_name):
    limit = positive(within(body, "inferenceConfig").get(limit_name), limit_name)
    system = [body["system"]] if body.get("system") else []
    return Answer(message_tokens(*system, *(each.get("content") for each in conversation(body))), limit)


def converse_usage(answer):
    return {"inputTokens": answer.input_tokens, "outputTokens": answer.output_tokens, "totalTokens": answer.total_tokens}


def converse_whole(answer):
    return {"output": {"message": {"role": "assistant", "content": [{"text": answer.text}]}},
            "stopReason": anthropic.stop(answer), "usage": converse_usage(answer), "metrics": LATENCY}


def converse_events(answer):
    yield "messageStart", {"role": "assistant"}
    for text, _ in answer.deltas():
        yield "contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}}
    yield "contentBlockStop", {"contentBlockIndex": 0}
    yield "messageStop", {"stopReason": anthropic.stop(answer)}
    yield "metadata", {"usage": converse_usage(answer), "metrics": LATENCY}


# --- InvokeModel ---


def invoke(call):
    """The answer in the vendor's format. Its tokens are in headers, or in a stream's last event."""
    answer, whole, parts = vendor(call.model)(call)
    if call.verb == "invoke":
        return Json(whole, {"x-amzn-bedrock-input-token-count": answer.input_tokens,
                            "x-amzn-bedrock-output-token-count": answer.output_tokens, "x-amzn-bedrock-invocation-latency": 1})
    if parts is None:
        raise Refused(400, "The model is unsupported for streaming")
    return Stream(CONTENT_TYPE, map(chunk, with_metrics(answer, parts)))


def with_metrics(answer, values):
    """The events of a stream, of which the last one has the tokens of the invocation."""
    *values, last = values
    yield from values
    yield {**last, "amazon-bedrock-invocationMetrics": {
        "inputTokenCount": answer.input_tokens, "outputTokenCount": answer.output_tokens, "invocationLatency": 1,
        "firstByteLatency": 1}}


def vendor(model):
    """The vendor in a model's id. The id may be the last part of an ARN, and may begin with a group of regions: `us.meta.llama3-…`."""
    words = model.rpartition("/")[2].split(".")
    for word in words[:2]:
        if word in VENDORS:
            return VENDORS[word]
    raise Refused(400, f"the stand-in does not know whose model {model!r} is: it plays {', '.join(VENDORS)}")


# Each function returns the answer, its whole format, and the formats of its parts (None if it cannot be streamed).


def invoke_anthropic(call):
    answer = anthropic.answer_to(call.body)
    return answer, anthropic.whole(answer, call.model), anthropic.stream(answer, call.model)


def invoke_amazon(call):
    """Nova has Converse's format; Titan's text and embedding models have `inputText`."""
    body = call.body
    if "inputText" not in body:
        answer = converse_answer(body, "maxTokens" if "maxTokens" in within(body, "inferenceConfig") else "max_new_tokens")
        return answer, converse_whole(answer), ({kind: payload} for kind, payload in converse_events(answer))
    given = prompt_tokens(body["inputText"])
    if "embed" in call.model:
        answer = Answer(given, choices=0)
        return answer, {"embedding": [1.0] + [0.0] * 7, "inputTextTokenCount": given}, None
    answer = Answer(given, positive(within(body, "textGenerationConfig").get("maxTokenCount"), "maxTokenCount"))
    reason = "LENGTH" if answer.is_cut else "FINISH"
    whole = {"inputTextTokenCount": given,
             "results": [{"tokenCount": answer.output_tokens, "outputText": answer.text, "completionReason": reason}]}
    return answer, whole, ({"outputText": text, "index": 0, "inputTextTokenCount": given, "totalOutputTextTokenCount": so_far,
                            "completionReason": reason if so_far == answer.output_tokens else None}
                           for text, so_far in answer.deltas())


def invoke_meta(call):
    answer = Answer(prompt_tokens(call.body.get("prompt")), positive(call.body.get("max_gen_len"), "max_gen_len"))

    def shape(text, so_far, reason):
        return {"generation": text, "prompt_token_count": answer.input_tokens, "generation_token_count": so_far,
                "stop_reason": reason}

    return answer, shape(answer.text, answer.output_tokens, openai.finish(answer)), (
        shape(text, so_far, openai.finish(answer) if so_far == answer.output_tokens else None)
        for text, so_far in answer.deltas())


def invoke_mistral(call):
    answer = Answer(prompt_tokens(call.body.get("prompt")), positive(call.body.get("max_tokens"), "max_tokens"))

    def shape(text, reason):
        return {"outputs": [{"text": text, "stop_reason": reason}]}

    return answer, shape(answer.text, openai.finish(answer)), (
        shape(text, openai.finish(answer) if so_far == answer.output_tokens else None) for text, so_far in answer.deltas())


VENDORS = {"anthropic": invoke_anthropic, "amazon": invoke_amazon, "meta": invoke_meta, "mistral": invoke_mistral}
