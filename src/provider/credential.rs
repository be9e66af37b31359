//! The credential by which the provider knows a caller.

use std::hash::{Hash, Hasher};

use super::endpoint::parameters;
use crate::base::hash::StableHasher;
use crate::http::Headers;

/// A hash of everything by which the provider may tell callers apart: keys, tokens, and the provider's project that the request is for. The
/// hash cannot be computed without the secret, and is never 0.
#[must_use]
pub fn credential(request: &Headers, secret: [u8; 16]) -> u64 {
    let [
        path,
        authorization,
        x_api_key,
        api_key,
        google,
        project,
        organization,
    ] = request.only_of([
        ":path",
        "authorization",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "openai-project",
        "openai-organization",
    ]);
    let in_path = parameters(path.unwrap_or_default()).find_map(|one| one.strip_prefix(b"key="));
    let shown = [x_api_key, api_key, google, project, organization, in_path];
    let mut hasher = StableHasher::new_with_key(&secret);
    authorization.map(signer).hash(&mut hasher);
    shown.hash(&mut hasher);
    hasher.finish().max(1)
}

/// The part of the header that identifies the caller. For AWS this is the signer, since each request has a different signature.
fn signer(authorization: &[u8]) -> &[u8] {
    if !authorization.starts_with(b"AWS4-") {
        return authorization;
    }
    authorization
        .split(|&byte| byte == b'/')
        .next()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn of(headers: &[(&str, &str)]) -> u64 {
        credential(&headers.iter().copied().collect(), [7; 16])
    }

    #[test]
    fn each_way_to_show_a_key_tells_callers_apart() {
        for (one, other) in [
            (("authorization", "Bearer a"), ("authorization", "Bearer b")),
            (("x-api-key", "a"), ("x-api-key", "b")),
            (("x-api-key", "a"), ("api-key", "a")),
            (("x-goog-api-key", "a"), ("x-goog-api-key", "b")),
            (("openai-project", "a"), ("openai-project", "b")),
            ((":path", "/v1?x=1&key=a"), (":path", "/v1?key=b")),
            (("x-other", "a"), ("x-api-key", "a")),
        ] {
            assert_ne!(of(&[one]), of(&[other]), "{one:?} {other:?}");
        }
        assert_eq!(
            of(&[(":path", "/a?key=k")]),
            of(&[(":path", "/b?x=y&key=k")])
        );
        assert_ne!(of(&[]), 0);
    }

    #[test]
    fn a_signature_is_as_good_as_another_of_the_same_key() {
        let signed = |key: &str, signature: &str| {
            let value = format!(
                "AWS4-HMAC-SHA256 Credential={key}/20261129/us-east-1/bedrock/aws4_request, SignedHeaders=host, Signature={signature}"
            );
            of(&[("authorization", &value)])
        };
        assert_eq!(signed("AKIA1", "aa"), signed("AKIA1", "bb"));
        assert_ne!(signed("AKIA1", "aa"), signed("AKIA2", "aa"));
    }
}
