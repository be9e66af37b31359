//! Every wire by a path that leads to it.

use bursar::http::Headers;
use bursar::provider::Endpoint;

/// At least one for each wire, with the model in the path where it can stand there.
pub const PATHS: &[&str] = &[
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/responses/compact",
    "/v1/messages",
    "/v1beta/models/v.big-1:generateContent",
    "/model/v.big-1/converse",
    "/model/v.big-1/invoke",
    "/openai/deployments/v.big-1/chat/completions?api-version=2024-10-21",
    "/openai/deployments/v.big-1/embeddings?api-version=2024-10-21",
    "/v1/projects/p/locations/l/publishers/anthropic/models/v.big-1:rawPredict",
    "/v1/projects/p/locations/l/publishers/mistralai/models/v.big-1:streamRawPredict",
    "/v1beta/models/v.big-1:streamGenerateContent?alt=sse",
    "/model/v.big-1/converse-stream",
    "/model/v.big-1/invoke-with-response-stream",
    "/v1/a/g/azure-openai/r/v.big-1/chat/completions?api-version=2023-05-15",
    "/serving-endpoints/chat/completions",
];

/// One of the paths.
pub fn path(choice: usize) -> &'static str {
    PATHS[choice % PATHS.len()]
}

/// The endpoint of a POST to this path.
pub fn endpoint(path: &[u8]) -> Option<Endpoint> {
    Endpoint::of(&headers(&[(":method", b"POST"), (":path", path)]))
}

pub fn headers(list: &[(&str, &[u8])]) -> Headers {
    list.iter().copied().collect()
}

/// Which of the paths has the wire of this one.
pub fn choice(path: &str) -> usize {
    let wire = |path: &str| format!("{:?}", endpoint(path.as_bytes()).unwrap().wire);
    let wanted = wire(path);
    PATHS
        .iter()
        .position(|known| wire(known) == wanted)
        .unwrap()
}
