//! Which requests are metered, by method and path, and in which wire format each of them is.

use super::path::{PathModel, Segment, segments, unescaped};
use super::wire::{Fault, Wire};
use super::{anthropic, bedrock, gemini, openai, responses};
use crate::http::Headers;
use crate::usage::ServiceTier;

/// A metered request, as far as its headers describe it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The request's wire format.
    pub wire: &'static dyn Wire,
    /// The model, if the path names it.
    pub model: Option<PathModel>,
    /// Whether the request carries a signature of its path and body, so that neither may be changed.
    pub is_signed: bool,
    /// Whether the API accepts `stream_options`, which request a stream's usage.
    pub takes_options: bool,
    /// Whether every stream reports its usage, so that no client gets that only because it was requested: `OpenRouter`'s do
    /// (<https://openrouter.ai/docs/use-cases/usage-accounting>, read 2026-12-01).
    pub tells_usage: bool,
    /// Whether the request asks for an upgrade to another protocol.
    pub upgrades: bool,
    /// Something in the path or headers that makes it impossible to meter the request.
    pub fault: Option<Fault>,
    /// Whether the answer is to be streamed, if the path says so and not the body.
    pub streams: Option<bool>,
    /// The service tier that the headers request.
    pub service_tier: Option<ServiceTier>,
}

impl Endpoint {
    /// Whether a stream's usage may be requested.
    #[must_use]
    pub fn may_be_asked(&self) -> bool {
        self.takes_options && !self.tells_usage && !self.is_signed
    }

    /// The endpoint of a request; `None` for everything that is not metered.
    #[must_use]
    pub fn of(request: &Headers) -> Option<Self> {
        let method = request.only(":method")?;
        let path = request.only(":path").unwrap_or_default();
        let upgrades = upgrades(request, method);
        let is_post = method.eq_ignore_ascii_case(b"POST");
        // Most requests that are not metered end here.
        if !is_post && !upgrades && !is_post_in_disguise(request, path) {
            return None;
        }
        let segments = segments(path);
        let amazon = amazon(path, &segments);
        let google = google(path, &segments);
        let is_google = google.is_some();
        let by_path = amazon.or(google);
        let service_tier = by_path
            .as_ref()
            .and_then(|(wire, _)| wire.asked_tier(request));
        let streams = by_path.as_ref().and_then(|_| streams(segments.last()?));
        let (wire, model) = by_path.or_else(|| by_last_names(path, &segments))?;
        let [authorization, host] = request.only_of(["authorization", ":authority"]);
        let is_signed = is_signed(authorization.unwrap_or_default(), path);
        let tells_usage = without_port(host).eq_ignore_ascii_case(b"openrouter.ai");
        let takes_options = !is_google && !refuses_options(host, path, &segments);
        let fault = hides_usage(request.has("x-goog-fieldmask"), path);
        let fault = fault.or_else(|| overrides(request));
        Some(Self {
            streams,
            wire,
            model,
            is_signed,
            takes_options,
            tells_usage,
            upgrades,
            fault,
            service_tier,
        })
    }
}

/// Whether a request would switch to another protocol (RFC 9110, 7.8; RFC 8441), which could not be read. `h2c` is still HTTP, and a proxy
/// that does not offer it ignores the request for it.
fn upgrades(request: &Headers, method: &[u8]) -> bool {
    let [upgrade, protocol] = request.only_of(["upgrade", ":protocol"]);
    if protocol.is_some() && method.eq_ignore_ascii_case(b"CONNECT") {
        return true;
    }
    if upgrade.is_none_or(|upgrade| upgrade.eq_ignore_ascii_case(b"h2c")) {
        return false;
    }
    let mut tokens = request.values("connection").flat_map(tokens);
    tokens.any(|token| token.eq_ignore_ascii_case(b"upgrade"))
}

const OVERRIDE: &str = "x-http-method-override";

/// Whether the server may treat a request as a POST although its method is another one: by a header that Google's APIs and frameworks heed
/// (<https://cloud.google.com/apis/docs/system-parameters>), or by a parameter of Google's browser clients (closure-library,
/// `goog.net.rpc.HttpCors`; both read 2026-11-29).
fn is_post_in_disguise(request: &Headers, path: &[u8]) -> bool {
    let is_post = |value: &[u8]| value.trim_ascii().eq_ignore_ascii_case(b"POST");
    let by_parameter = || {
        parameters(path).any(|parameter| {
            let (name, value) = split(parameter);
            unescaped(name) == b"$httpMethod" && is_post(&unescaped(value))
        })
    };
    let by_header = || {
        let mut methods = request.values(OVERRIDE).flat_map(tokens);
        methods.any(is_post)
    };
    by_header() || path.contains(&b'?') && by_parameter()
}

/// The entries of a header's list.
fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let tokens = value.split(|byte| *byte == b',');
    tokens.map(<[u8]>::trim_ascii)
}

/// Whether a request's body is encoded, so that it cannot be read here.
#[must_use]
pub fn is_encoded(request: &Headers) -> bool {
    let plain: [&[u8]; 4] = [b"", b"identity", b"none", b"utf-8"];
    let mut codings = request.values("content-encoding").flat_map(tokens);
    codings.any(|coding| !plain.iter().any(|plain| coding.eq_ignore_ascii_case(plain)))
}

/// The wire format for errors to a request that belongs to no known API.
#[must_use]
pub fn speaker(request: &Headers) -> &'static dyn Wire {
    if request.has("anthropic-version") {
        &anthropic::Messages
    } else if request.has("x-goog-api-key") || request.has("x-goog-user-project") {
        &gemini::Gemini
    } else {
        &openai::Chat
    }
}

/// A parameter or header of Google's APIs that would hide the usage: a field mask, or a format other than JSON
/// (<https://cloud.google.com/apis/docs/system-parameters>, read 2026-11-29). Google also offers OpenAI's API, and no other provider has a
/// use for any of these.
fn hides_usage(is_masked: bool, path: &[u8]) -> Option<Fault> {
    let hidden = parameters(path).find_map(|parameter| {
        let (name, value) = split(parameter);
        let (name, value) = (unescaped(name), unescaped(value));
        // The last form is that of Google's generated clients (googleapis/google-cloud-python, `rest_base.py`, read 2026-11-30).
        let is_json = [&b"json"[..], b"sse", b"json;enum-encoding=int"].contains(&value.as_slice());
        match name.strip_prefix(b"$").unwrap_or(&name) {
            b"fields" => Some("fields"),
            b"callback" => Some("callback"),
            // This parameter carries headers, perhaps a mask.
            b"httpHeaders" => Some("$httpHeaders"),
            b"alt" if !is_json => Some("alt"),
            _ => None,
        }
    });
    let mask = is_masked.then_some("x-goog-fieldmask");
    hidden.or(mask).map(Fault::HidesUsage)
}

/// Portkey's gateway takes from a header what replaces the body's members, and which models to call; the name of a configuration that is kept
/// there is the operator's own (<https://portkey.ai/docs/api-reference/inference-api/headers>, read 2026-12-01).
fn overrides(request: &Headers) -> Option<Fault> {
    const NAME: &str = "x-portkey-config";
    let mut values = request.values(NAME);
    let is_written_out = values.any(|value| value.contains(&b'{'));
    is_written_out.then_some(Fault::Overrides(NAME))
}

fn split(parameter: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = parameter.splitn(2, |byte| *byte == b'=');
    let name = parts.next().unwrap_or_default();
    (name, parts.next().unwrap_or_default())
}

type Found = (&'static dyn Wire, Option<PathModel>);

/// Gemini and Vertex AI: `…/models/{model}:{verb}`
/// (<https://ai.google.dev/api/generate-content>, <https://cloud.google.com/vertex-ai/docs/reference/rest>).
fn google(path: &[u8], segments: &[Segment<'_>]) -> Option<Found> {
    let [rest @ .., collection, last] = segments else {
        return None;
    };
    if !["models", "tunedmodels", "endpoints", "dynamic"]
        .iter()
        .any(|name| collection.is(name))
    {
        return None;
    }
    let (name, verb) = last.verb()?;
    let publisher = match rest {
        [.., publishers, publisher] if publishers.is("publishers") => publisher.text.as_ref(),
        _ => b"google",
    };
    let wire: &'static dyn Wire = match verb.to_ascii_lowercase().as_slice() {
        b"generatecontent" | b"streamgeneratecontent" => &gemini::Gemini,
        // This name is not a model: Vertex AI counts the tokens of a prompt under it, free of charge.
        b"rawpredict" | b"streamrawpredict" if name.eq_ignore_ascii_case(b"count-tokens") => {
            return None;
        }
        b"rawpredict" | b"streamrawpredict" => match publisher.eq_ignore_ascii_case(b"anthropic") {
            true => &anthropic::Messages,
            false => &openai::Chat,
        },
        _ => return None,
    };
    let mut model = PathModel::before_verb(path, last)?;
    model.is_own = !collection.is("models");
    Some((wire, Some(model)))
}

/// Amazon Bedrock: `/model/{model}/{operation}`
/// (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html>).
fn amazon(path: &[u8], segments: &[Segment<'_>]) -> Option<Found> {
    let (last, rest) = segments.split_last()?;
    let wire: &'static dyn Wire = if last.is("converse") || last.is("converse-stream") {
        &bedrock::Converse
    } else if last.is("invoke") || last.is("invoke-with-response-stream") {
        &bedrock::Invoke
    } else {
        return None;
    };
    let after = rest
        .iter()
        .position(|segment| segment.is("model"))?
        .saturating_add(1);
    // An unescaped ARN has slashes of its own.
    let model = PathModel::new(path, rest.get(after..)?)?;
    Some((wire, Some(model)))
}

/// Whether Google's verb or Amazon's operation requests a stream; `None` if that is up to the body.
fn streams(last: &Segment<'_>) -> Option<bool> {
    let (_, name) = last.verb().unwrap_or((b"", &last.text));
    let is = |names: [&str; 3]| {
        let mut names = names.iter();
        names.any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
    };
    let is_stream = is([
        "streamGenerateContent",
        "converse-stream",
        "invoke-with-response-stream",
    ]);
    (is_stream || is(["generateContent", "converse", "invoke"])).then_some(is_stream)
}

/// The APIs of OpenAI, of servers that are compatible with it, and of Anthropic.
fn by_last_names(path: &[u8], segments: &[Segment<'_>]) -> Option<Found> {
    let (wire, rest): (&'static dyn Wire, _) = match segments {
        // Perplexity's asynchronous API nests the request, and answers later at another path (docs.perplexity.ai, read 2026-11-29).
        [.., asynchronous, chat, last]
            if asynchronous.is("async") && chat.is("chat") && last.is("completions") =>
        {
            return None;
        }
        [rest @ .., chat, last] if chat.is("chat") && last.is("completions") => {
            (&openai::Chat, rest)
        }
        // Mistral's agents, whose requests name no model but an agent (docs.mistral.ai/api, read 2026-11-29).
        [.., agents, last] if agents.is("agents") && last.is("completions") => return None,
        [rest @ .., last] if last.is("completions") => (&openai::Completions, rest),
        [rest @ .., last] if last.is("embeddings") => (&openai::Embeddings, rest),
        [rest @ .., last] if last.is("responses") => {
            (&responses::Responses { compacts: false }, rest)
        }
        [rest @ .., responses, last] if responses.is("responses") && last.is("compact") => {
            (&responses::Responses { compacts: true }, rest)
        }
        // Only Anthropic's `messages`: threads of OpenAI's Assistants also have messages.
        [.., version, last] if version.is("v1") && last.is("messages") => {
            return Some((&anthropic::Messages, None));
        }
        _ => return None,
    };
    let deployment = deployment(rest).and_then(|names| PathModel::new(path, names));
    Some((wire, deployment))
}

/// The path segments of an Azure deployment, in Azure's own paths and in those of Cloudflare's gateway
/// (`/azure-openai/{resource}/{deployment}/…`, <https://developers.cloudflare.com/ai-gateway/usage/providers/azureopenai/>, read
/// 2026-11-29); or of a model in OpenAI's former paths, which LiteLLM still prefers to the body's model. Docker's paths, such as
/// `/engines/llama.cpp/v1/…`, name no model (<https://docs.docker.com/ai/model-runner/api-reference/>, read 2026-11-30).
fn deployment<'a, 'b>(segments: &'a [Segment<'b>]) -> Option<&'a [Segment<'b>]> {
    let after = |names: &[&str], skipped: usize| {
        let is_name = |segment: &Segment<'_>| names.iter().any(|name| segment.is(name));
        let at = segments.iter().position(is_name)?;
        let rest = segments.get(at.saturating_add(skipped)..)?;
        let (last, others) = rest.split_last()?;
        let is_server = last.is("v1") && (!others.is_empty() || segments.get(at)?.is("engines"));
        (!is_server).then_some(rest)
    };
    after(&["deployments", "engines"], 1).or_else(|| after(&["azure-openai"], 2))
}

/// Whether an API refuses `stream_options`: Databricks' and Mistral's own do, and so do versions of Azure OpenAI's API before
/// 2024-09-01-preview, which introduced them (<https://github.com/Azure/azure-sdk-for-java/issues/40998>, read 2026-11-22), and Azure's API
/// for other models, at `/models/…` (<https://github.com/BerriAI/litellm/issues/9800>, read 2026-11-30). A version is a date.
fn refuses_options(host: Option<&[u8]>, path: &[u8], segments: &[Segment<'_>]) -> bool {
    let is_azure = |segment: &Segment<'_>| {
        let mut names = ["deployments", "azure-openai", "models"].iter();
        names.any(|name| segment.is(name))
    };
    let mut versions = parameters(path).filter_map(|value| value.strip_prefix(b"api-version="));
    let is_older =
        segments.iter().any(is_azure) && versions.any(|version| version < b"2024-09".as_slice());
    let is_databricks = segments
        .first()
        .is_some_and(|first| first.is("serving-endpoints"));
    let name = without_port(host);
    let hosts = [&b"api.mistral.ai"[..], b"codestral.mistral.ai"];
    is_older || is_databricks || hosts.iter().any(|host| name.eq_ignore_ascii_case(host))
}

fn without_port(host: Option<&[u8]>) -> &[u8] {
    let host = host.unwrap_or_default();
    host.split(|byte| *byte == b':').next().unwrap_or_default()
}

/// The value of a parameter in a path's query, unescaped; the first value if there are several.
#[must_use]
pub fn parameter(path: &[u8], name: &str) -> Option<Vec<u8>> {
    let parameters = parameters(path).map(split);
    let mut values = parameters.filter(|(key, _)| unescaped(key) == name.as_bytes());
    values.next().map(|(_, value)| unescaped(value))
}

/// The parameters of a path's query.
pub(super) fn parameters(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let query = path.splitn(2, |byte| *byte == b'?').nth(1);
    query.unwrap_or_default().split(|byte| *byte == b'&')
}

/// Whether AWS's Signature Version 4 covers the request, in its header or otherwise in its query
/// (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>).
///
/// The signature is not verified. It counts on any path, since Bedrock also serves OpenAI's paths. A proxy that signs requests itself, or
/// inserts its own key, has to remove a client's signature first.
fn is_signed(authorization: &[u8], path: &[u8]) -> bool {
    match authorization.trim_ascii_start() {
        b"" => parameters(path).any(|parameter| parameter.starts_with(b"X-Amz-Signature=")),
        authorization => authorization.starts_with(b"AWS4-"),
    }
}
