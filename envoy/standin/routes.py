"""Which API a path belongs to. A prefix of the path, as some gateways add it, is ignored."""

import re
import urllib.parse

from . import anthropic, bedrock, gemini, openai, responses
from .answer import Refused
from .call import Call, parse_body

# (pattern of the decoded path, the function that answers, the format of its errors). The first pattern that matches counts.
POST = tuple((re.compile(pattern), answers, error) for pattern, answers, error in (
    (r"^/model/(?P<model>.+)/(?P<verb>converse|converse-stream)$", bedrock.converse, bedrock.error),
    (r"^/model/(?P<model>.+)/(?P<verb>invoke|invoke-with-response-stream)$", bedrock.invoke, bedrock.error),
    (r"/publishers/anthropic/models/(?P<model>[^/]+):(?P<verb>rawPredict|streamRawPredict)$", anthropic.messages, anthropic.error),
    (r"/publishers/mistralai/models/(?P<model>[^/]+):(?P<verb>rawPredict|streamRawPredict)$", openai.chat, openai.error),
    (r"/(?P<model>[^/]+):(?P<verb>generateContent|streamGenerateContent)$", gemini.generate, gemini.error),
    (r"/messages$", anthropic.messages, anthropic.error),
    (r"(?:/deployments/(?P<model>[^/]+))?/chat/completions$", openai.chat, openai.error),
    (r"(?:/deployments/(?P<model>[^/]+))?/completions$", openai.completions, openai.error),
    (r"(?:/deployments/(?P<model>[^/]+))?/embeddings$", openai.embeddings, openai.error),
    (r"/responses$", responses.responses, openai.error),
))
GET_MODELS = re.compile(r"^(/openai)?/v1/models$")


def reply(method, target, data):
    """The reply to a request. A refusal has the format of the request's API."""
    path, _, query = target.partition("?")
    path, query = urllib.parse.unquote(path), dict(urllib.parse.parse_qsl(query))
    answers, error, call = find(method, path, query)
    try:
        if method == "POST" and answers is not None:
            call.body = parse_body(data)
        if answers is None:
            raise Refused(404, f"Invalid URL ({method} {path})")
        return answers(call)
    except RecursionError:
        return shaped(error, Refused(400, "The body is nested too deeply."))
    except Refused as refused:
        return shaped(error, refused)


def shaped(error, refused):
    answer = error(refused)
    answer.status = refused.status
    return answer


def find(method, path, query):
    if method == "GET" and GET_MODELS.search(path):
        return openai.models, openai.error, Call(method, path, query, {})
    for pattern, answers, error in POST if method == "POST" else ():
        found = pattern.search(path)
        if found:
            return answers, error, Call(method, path, query, {}, **found.groupdict())
    return None, openai.error, None
