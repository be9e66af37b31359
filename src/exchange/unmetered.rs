//! Requests that bursar does not meter: those to other hosts pass, those to unmetered endpoints pass or are refused.

use crate::base::glob::matches;
use crate::config::Config;
use crate::http::Headers;
use crate::provider::plain;

/// Whether requests to this host are processed.
pub(super) fn is_our_host(config: &Config, request: &Headers) -> bool {
    config.hosts.as_ref().is_none_or(|hosts| {
        let authority = request.only(":authority").unwrap_or_default();
        let host = String::from_utf8_lossy(without_port(authority)).to_ascii_lowercase();
        // A host name may end with a dot, as a fully qualified one, and still names the same host.
        let host = host.trim_end_matches('.');
        hosts.iter().any(|glob| matches(glob, host))
    })
}

/// An authority without its port (RFC 3986, 3.2); an IPv6 address has colons of its own, in brackets.
fn without_port(authority: &[u8]) -> &[u8] {
    let colon = authority.iter().rposition(|byte| *byte == b':');
    let split = colon.and_then(|colon| authority.split_at_checked(colon));
    match split {
        Some((host, port)) if port.iter().skip(1).all(u8::is_ascii_digit) => host,
        _ => authority,
    }
}

/// Whether a request that is not metered is forwarded.
pub(super) fn passes(config: &Config, request: &Headers) -> bool {
    let Some(allowed) = &config.unmetered_allow else {
        return true;
    };
    let [method, path] = request.only_of([":method", ":path"]);
    let is = |name: &str| method.is_some_and(|method| method.eq_ignore_ascii_case(name.as_bytes()));
    // The path is normalised, so that no other spelling of it passes a glob.
    let path = plain(path.unwrap_or_default());
    let reads = ["/v1/models*", "/health*"];
    let globs = allowed.iter().map(String::as_str);
    is("OPTIONS")
        || (is("GET") || is("HEAD")) && reads.iter().any(|glob| matches(glob, &path))
        || path == "/v1/messages/count_tokens"
        || globs.into_iter().any(|glob| matches(glob, &path))
}
