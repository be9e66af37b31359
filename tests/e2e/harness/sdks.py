"""The providers' official Python SDKs, unmodified, each as an application would use it.

An `Sdk` makes one kind of call, streamed or not, and tells what the application got: the text, the usage that the SDK
reports, the headers. `top` is the model that it asks for, `lower` the one that a ladder may put in its place.
"""

import re
import urllib.parse
from typing import NamedTuple

import anthropic
import botocore
import botocore.exceptions
import botocore.session
import google.oauth2.credentials
import openai
from botocore.config import Config
from google import genai
from google.genai import types

from . import aimock, wires

MESSAGES = [{"role": "user", "content": aimock.PROMPT}]
LIMIT = 50
NO_LIMIT = 1.5       # an output limit that makes a body invalid; every SDK sends it on
TOKEN = "test"
EVERYTHING = ("tools", "images", "structured_output", "thinking", "adaptive_thinking", "effort",
              "signed_thinking", "cached_prompt", "cache_settings", "recent_features")
# Where a path names the model, up to the `/` or `:` behind it.
IN_PATH = re.compile(r"(/deployments/|/models?/)([^/]+?)(?=/|:[a-zA-Z]+(?:\?|$))")


class Got(NamedTuple):
    """What a call got. `usage` is (input, output) as the SDK tells it; `headers` have lower-case names."""

    text: str
    usage: tuple
    headers: dict


class Refused(NamedTuple):
    """What an SDK's error tells: its class, the HTTP status, the provider's word for it, and bursar's code if it has a
    place for that and the SDK shows it."""

    error: type
    status: int
    word: str
    code: str
    headers: dict


def path_and_model(target):
    """A request's path with `{model}` in place of the model that it names, and that model; None if it names none."""
    found = IN_PATH.search(target)
    if not found:
        return target, None
    return target[:found.start(2)] + "{model}" + target[found.end(2):], urllib.parse.unquote(found[2])


def joined(texts):
    return "".join(text or "" for text in texts)


def lower_case(headers):
    return {name.lower(): value for name, value in headers.items()}


class Sdk:
    """One kind of call. `aimock_serves` says for which of (whole, streamed) aimock has it; for the others there is a
    scripted answer, `wire(reported, stream)`."""

    forms = (False, True)
    aimock_serves = (True, True)
    wire = None
    supports = EVERYTHING    # what the ladder says of the lower model
    errors = None         # status -> (class, the provider's word)
    spent = (429, None)   # what a spent budget is: the status, and the provider's word if it is not that of any 429
    attempts = 1          # how often the SDK asks, at its defaults, where the wait is long
    comes_back = True     # by itself, if the provider says no
    can_be_invalid = True
    unpacks = True           # a compressed answer
    is_exchangeable = True   # whether another model's answer would do as well

    def __init__(self, name, top, lower, **how):
        self.name, self.top, self.lower = name, top, lower
        for key, value in how.items():
            setattr(self, key, value)

    def __repr__(self):
        return self.name

    def ask(self, url, headers, stream=False, limit=LIMIT):
        raise NotImplementedError

    def refused(self, error):
        raise NotImplementedError


# --- openai ---


class OpenAi(Sdk):
    base = "/v1"
    errors = {400: (openai.BadRequestError, "invalid_request_error"),
              401: (openai.AuthenticationError, "authentication_error"),
              403: (openai.PermissionDeniedError, "permission_error"),
              429: (openai.RateLimitError, None)}

    def client(self, url, headers):
        return openai.OpenAI(base_url=url + self.base, api_key=TOKEN, default_headers=headers)

    def refused(self, error):
        return Refused(type(error), error.status_code, error.type, error.code, lower_case(error.response.headers))


class Azure:
    """The same calls with the deployment in the path."""

    def client(self, url, headers):
        return openai.AzureOpenAI(azure_endpoint=url, api_version="2024-10-21", api_key=TOKEN,
                                  default_headers=headers)


class OpenAiChat(OpenAi):
    def ask(self, url, headers, stream=False, limit=LIMIT):
        usage = {"stream_options": {"include_usage": True}} if stream else {}
        raw = self.client(url, headers).chat.completions.with_raw_response.create(
            model=self.top, messages=MESSAGES, max_tokens=limit, stream=stream, **usage)
        return self.got(raw.headers, list(raw.parse()) if stream else [raw.parse()],
                        lambda choice: choice.delta.content if stream else choice.message.content)

    @staticmethod
    def got(headers, parts, text_of):
        usage = parts[-1].usage
        return Got(joined(text_of(choice) for part in parts for choice in part.choices),
                   (usage.prompt_tokens, usage.completion_tokens), lower_case(headers))


class AzureChat(Azure, OpenAiChat):
    pass


class OpenAiCompletions(OpenAi):
    aimock_serves = (False, False)
    wire = staticmethod(wires.completion)

    def ask(self, url, headers, stream=False, limit=LIMIT):
        usage = {"stream_options": {"include_usage": True}} if stream else {}
        raw = self.client(url, headers).completions.with_raw_response.create(
            model=self.top, prompt=aimock.PROMPT, max_tokens=limit, stream=stream, **usage)
        parts = list(raw.parse()) if stream else [raw.parse()]
        return OpenAiChat.got(raw.headers, parts, lambda choice: choice.text)


class OpenAiResponses(OpenAi):
    def ask(self, url, headers, stream=False, limit=LIMIT):
        raw = self.client(url, headers).responses.with_raw_response.create(
            model=self.top, input=aimock.PROMPT, max_output_tokens=limit, stream=stream)
        if stream:
            events = list(raw.parse())
            text = joined(event.delta for event in events if event.type == "response.output_text.delta")
            usage = events[-1].response.usage
        else:
            response = raw.parse()
            text, usage = response.output_text, response.usage
        return Got(text, (usage.input_tokens, usage.output_tokens), lower_case(raw.headers))


class OpenAiEmbeddings(OpenAi):
    forms = (False,)
    wire = staticmethod(wires.embedding)
    can_be_invalid = False
    is_exchangeable = False

    def ask(self, url, headers, stream=False, limit=LIMIT):
        raw = self.client(url, headers).embeddings.with_raw_response.create(model=self.top, input=aimock.PROMPT)
        response = raw.parse()
        assert response.data[0].embedding
        return Got(aimock.TEXT, (response.usage.prompt_tokens, 0), lower_case(raw.headers))


class AzureEmbeddings(Azure, OpenAiEmbeddings):
    pass


# --- anthropic ---


class Anthropic(Sdk):
    errors = {400: (anthropic.BadRequestError, "invalid_request_error"),
              401: (anthropic.AuthenticationError, "authentication_error"),
              403: (anthropic.PermissionDeniedError, "permission_error"),
              429: (anthropic.RateLimitError, "rate_limit_error")}

    def client(self, url, headers):
        return anthropic.Anthropic(base_url=url, api_key=TOKEN, default_headers=headers)

    def ask(self, url, headers, stream=False, limit=LIMIT):
        raw = self.client(url, headers).messages.with_raw_response.create(
            model=self.top, messages=MESSAGES, max_tokens=limit, stream=stream)
        if not stream:
            message = raw.parse()
            return Got(joined(block.text for block in message.content),
                       (message.usage.input_tokens, message.usage.output_tokens), lower_case(raw.headers))
        events = list(raw.parse())
        text = joined(event.delta.text for event in events if event.type == "content_block_delta")
        given = [event.message.usage.input_tokens for event in events if event.type == "message_start"]
        made = [event.usage.output_tokens for event in events if event.type == "message_delta"]
        return Got(text, (given[0], made[-1]), lower_case(raw.headers))

    def refused(self, error):
        assert error.body["type"] == "error", error.body
        inner = error.body["error"]
        return Refused(type(error), error.status_code, inner["type"], inner["code"], lower_case(error.response.headers))


class AnthropicVertex(Anthropic):
    aimock_serves = (False, False)
    wire = staticmethod(wires.message)

    def client(self, url, headers):
        return anthropic.AnthropicVertex(base_url=f"{url}/v1", access_token=TOKEN, region="us-east5", project_id="p",
                                         default_headers=headers)


class AnthropicBedrock(Anthropic):
    # aimock's frames are not wrapped in `bytes`, and the SDK sees no event.
    aimock_serves = (True, False)
    wire = staticmethod(wires.invoke)
    spent = (400, None)
    errors = {status: (error, None) for status, (error, _) in Anthropic.errors.items()}

    def refused(self, error):
        assert error.body["message"]   # in Bedrock's shape
        return Refused(type(error), error.status_code, None, error.body["code"], lower_case(error.response.headers))

    def client(self, url, headers):
        return anthropic.AnthropicBedrock(base_url=url, api_key=TOKEN, aws_region="us-east-1",
                                          default_headers=headers)


# --- google-genai ---


class Gemini(Sdk):
    comes_back = False
    version = "v1beta"
    wire = staticmethod(wires.gemini)
    errors = {400: (genai.errors.ClientError, "INVALID_ARGUMENT"),
              401: (genai.errors.ClientError, "UNAUTHENTICATED"),
              403: (genai.errors.ClientError, "PERMISSION_DENIED"),
              429: (genai.errors.ClientError, "RESOURCE_EXHAUSTED")}

    def options(self, url, headers):
        return types.HttpOptions(base_url=url, headers=headers, api_version=self.version)

    def client(self, url, headers):
        return genai.Client(api_key=TOKEN, http_options=self.options(url, headers))

    def ask(self, url, headers, stream=False, limit=LIMIT):
        client = self.client(url, headers)
        # The SDK checks types itself; what it is given as `extra_body` it sends as it stands.
        more = {"http_options": {"extra_body": {"generationConfig": {"maxOutputTokens": limit}}}}
        if stream:
            parts = list(client.models.generate_content_stream(
                model=self.top, contents=aimock.PROMPT, config=more))
        else:
            parts = [client.models.generate_content(model=self.top, contents=aimock.PROMPT, config=more)]
        usage = parts[-1].usage_metadata
        return Got(joined(part.text for part in parts), (usage.prompt_token_count, usage.candidates_token_count),
                   lower_case(parts[0].sdk_http_response.headers))

    def refused(self, error):
        inner = error.details["error"]
        assert inner["code"] == error.code, inner
        detail, *_ = inner["details"]
        assert detail["@type"] == "type.googleapis.com/google.rpc.ErrorInfo" and detail["domain"] == "bursar", detail
        return Refused(type(error), error.code, error.status, detail["reason"], lower_case(error.response.headers))


class VertexGemini(Gemini):
    version = "v1"

    def client(self, url, headers):
        return genai.Client(vertexai=True, project="p", location="us-central1",
                            credentials=google.oauth2.credentials.Credentials(token=TOKEN),
                            http_options=self.options(url, headers))


# --- botocore, which is what boto3 calls ---


class BedrockConverse(Sdk):
    # aimock's `contentBlockStart` has an empty `start`, which botocore refuses.
    aimock_serves = (True, False)
    wire = staticmethod(wires.converse)
    unpacks = False
    errors = {400: (botocore.exceptions.ClientError, "ValidationException"),
              401: (botocore.exceptions.ClientError, "AccessDeniedException"),
              403: (botocore.exceptions.ClientError, "AccessDeniedException"),
              429: (botocore.exceptions.ClientError, "ThrottlingException")}
    spent = (400, "ServiceQuotaExceededException")   # AWS's SDKs try again after any 429
    attempts = 3          # a ThrottlingException is retried whatever the wait

    def client(self, url, headers):
        # An API key (a bearer token) signs nothing. botocore takes one over TLS only, so here it is added as a header.
        client = self.session().create_client(
            "bedrock-runtime", region_name="us-east-1", endpoint_url=url,
            config=Config(signature_version=botocore.UNSIGNED, parameter_validation=False))
        self.add(client, dict(headers, authorization=f"Bearer {TOKEN}"))
        return client

    @staticmethod
    def session():
        return botocore.session.get_session()

    @staticmethod
    def add(client, headers):
        client.meta.events.register("before-call", lambda params, **_: params["headers"].update(headers))

    def ask(self, url, headers, stream=False, limit=LIMIT):
        client = self.client(url, headers)
        how = {"modelId": self.top, "messages": [{"role": "user", "content": [{"text": aimock.PROMPT}]}],
               "inferenceConfig": {"maxTokens": limit}}
        answer = client.converse_stream(**how) if stream else client.converse(**how)
        if stream:
            events = list(answer["stream"])
            deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
            text = joined(delta["text"] for delta in deltas)
            usage = events[-1]["metadata"]["usage"]
        else:
            text, usage = joined(block["text"] for block in answer["output"]["message"]["content"]), answer["usage"]
        return Got(text, (usage["inputTokens"], usage["outputTokens"]),
                   lower_case(answer["ResponseMetadata"]["HTTPHeaders"]))

    def refused(self, error):
        meta = error.response["ResponseMetadata"]
        assert error.response["Error"]["Message"]
        return Refused(botocore.exceptions.ClientError, meta["HTTPStatusCode"], error.response["Error"]["Code"], None,
                       lower_case(meta["HTTPHeaders"]))


class SignedBedrockConverse(BedrockConverse):
    """With an access key: the signature covers the path."""

    def client(self, url, headers):
        client = self.session().create_client(
            "bedrock-runtime", region_name="us-east-1", endpoint_url=url, aws_access_key_id="test",
            aws_secret_access_key="test")
        self.add(client, headers)
        return client


# The ladder does not say of its lower model that it can do everything.
CAREFUL = Gemini("careful_gemini", "gemini-3-pro", "gemini-3-flash", supports=None)
SIGNED = SignedBedrockConverse("signed_bedrock_converse", "us.amazon.nova-pro-v1:0", "us.amazon.nova-lite-v1:0")
PROFILE = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/"
ALL = [
    OpenAiChat("openai_chat", "gpt-4o", "gpt-4o-mini"),
    OpenAiCompletions("openai_completions", "gpt-3.5-turbo-instruct", "davinci-002"),
    OpenAiResponses("openai_responses", "gpt-5", "gpt-5-mini"),
    OpenAiEmbeddings("openai_embeddings", "text-embedding-3-large", "text-embedding-3-small"),
    # aimock reports 0 tokens for embeddings, whatever its fixtures say.
    OpenAiEmbeddings("openai_embeddings_counted", "text-embedding-3-large", "text-embedding-3-small",
                     aimock_serves=(False, False)),
    AzureChat("azure_chat", "prod-gpt-4o", "prod-gpt-4o-mini"),
    AzureEmbeddings("azure_embeddings", "prod-embed-large", "prod-embed-small", aimock_serves=(False, False)),
    OpenAiChat("azure_v1_chat", "dep-gpt-4o", "dep-gpt-4o-mini", base="/openai/v1"),
    OpenAiResponses("azure_v1_responses", "dep-gpt-5", "dep-gpt-5-mini", base="/openai/v1"),
    Anthropic("anthropic", "claude-opus-4-1", "claude-haiku-4-5"),
    AnthropicVertex("anthropic_vertex", "claude-opus-4-1@20250805", "claude-haiku-4-5@20251001"),
    AnthropicBedrock("anthropic_bedrock", "anthropic.claude-opus-4-1-20250805-v1:0",
                     "anthropic.claude-haiku-4-5-20251001-v1:0"),
    Gemini("gemini", "gemini-2.5-pro", "gemini-2.5-flash"),
    # aimock knows v1beta only.
    Gemini("gemini_v1", "gemini-2.5-pro", "gemini-2.5-flash", version="v1", aimock_serves=(False, False)),
    VertexGemini("vertex_gemini", "gemini-2.5-pro", "gemini-2.5-flash"),
    BedrockConverse("bedrock_converse", SIGNED.top, SIGNED.lower),
    BedrockConverse("bedrock_converse_arn", PROFILE + SIGNED.top, PROFILE + SIGNED.lower),
]


def ladders():
    """A ladder for each pair of models."""
    pairs = dict.fromkeys((sdk.top, sdk.lower, sdk.supports) for sdk in [*ALL, CAREFUL])
    return [ladder(*pair) for pair in pairs]


def ladder(top, lower, supports):
    low = {"name": "low", "model": lower, "below": 0.5}
    if supports is not None:
        low["supports"] = supports
    return {"tiers": [{"name": "top", "model": top}, low]}
