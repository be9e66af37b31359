//! Which tenant pays: from the bytes that a request carries to a tenant id.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};

use crate::base::name::Name;
use crate::http::{Headers, Properties};

/// Longest tenant id in bytes. Enough for a SPIFFE id of ordinary length; the bound keeps keys and logs small.
pub const MAX_ID: usize = 256;

/// The id of a tenant: 1 to [`MAX_ID`] bytes of UTF-8 without control characters. Ids are equal if their names are.
#[derive(Clone, Debug)]
pub struct TenantId {
    name: Name,
    /// The name under which the tenant's account was opened, if the tenant was renamed since.
    was: Option<Name>,
    /// Whether the account belongs to a plan that is tried on the tenant's requests.
    is_trial: bool,
}

impl TenantId {
    /// An id from bytes that a client may have chosen; `None` if the bytes are no valid id.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let fits = (1..=MAX_ID).contains(&text.len());
        (fits && !text.chars().any(char::is_control)).then(|| Self {
            name: text.into(),
            was: None,
            is_trial: false,
        })
    }

    /// This id, with the account of the tenant that had the id `was`.
    #[must_use]
    pub fn renamed(self, was: &Self) -> Self {
        Self {
            was: Some(was.name.clone()),
            ..self
        }
    }

    /// This id, with the account of a plan that is tried on the tenant's requests. The account's name has a control character, as no id
    /// has.
    #[must_use]
    pub(crate) fn trying(&self, plan: &str) -> Self {
        Self {
            name: self.name.clone(),
            was: Some([self.account(), "\u{1f}", plan].concat().into()),
            is_trial: true,
        }
    }

    /// Whether the account belongs to a plan that is tried, so that it is never published as the tenant's.
    pub(crate) fn is_trial(&self) -> bool {
        self.is_trial
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The name under which the tenant's state is stored. This name survives a rename: an older configuration, or a request in flight, that
    /// has another name for the tenant reads and writes the same records.
    #[must_use]
    pub fn account(&self) -> &str {
        self.was.as_ref().unwrap_or(&self.name)
    }

    /// The id as shared text.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }
}

impl PartialEq for TenantId {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for TenantId {}

/// Hashes the id's text, so that a map of ids can be searched by text.
impl Hash for TenantId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Borrow<str> for TenantId {
    fn borrow(&self) -> &str {
        &self.name
    }
}

/// Where to look for the tenant's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A request header, by its lower-case name. A header that was sent twice is ignored.
    Header(String),
    /// A property of the request or of the proxy, by its path (Envoy's "attributes").
    Property(Vec<String>),
}

impl Source {
    /// A claim of the JWT that Envoy's `jwt_authn` has checked; that filter needs `payload_in_metadata: payload`.
    #[must_use]
    pub fn jwt_claim(claim: &str) -> Self {
        let [a, b, c, d] = JWT_PAYLOAD;
        Self::Property(path(&[a, b, c, d, claim]))
    }

    /// The first URI in the client certificate's subject alternative names, such as a SPIFFE id.
    #[must_use]
    pub fn peer_uri_san() -> Self {
        Self::Property(path(&["connection", "uri_san_peer_certificate"]))
    }
}

/// Where Envoy's `jwt_authn` puts the payload of a token.
const JWT_PAYLOAD: [&str; 4] = [
    "metadata",
    "filter_metadata",
    "envoy.filters.http.jwt_authn",
    "payload",
];

/// In the form that the operator writes.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match self {
            Self::Header(name) => return write!(f, "header `{name}`"),
            Self::Property(path) => path,
        };
        if *self == Self::peer_uri_san() {
            return f.write_str("the URI in the client's certificate");
        }
        match path.split_at_checked(JWT_PAYLOAD.len()) {
            Some((payload, [claim])) if payload == JWT_PAYLOAD => write!(f, "JWT claim `{claim}`"),
            _ => write!(f, "property `{}`", path.join(".")),
        }
    }
}

fn path(segments: &[&str]) -> Vec<String> {
    segments.iter().map(|&segment| segment.to_owned()).collect()
}

/// The bytes that name the request's tenant: those of the first source that yields any.
#[must_use]
pub fn principal(
    sources: &[Source],
    headers: &Headers,
    properties: &impl Properties,
) -> Option<Vec<u8>> {
    sources.iter().find_map(|source| {
        let value = match source {
            Source::Header(name) => headers.only(name).map(<[u8]>::to_vec),
            Source::Property(path) => properties.property(path),
        };
        value.filter(|value| !value.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    struct Claims(Option<&'static str>);

    impl Properties for Claims {
        fn property(&self, path: &[String]) -> Option<Vec<u8>> {
            let value = self
                .0
                .filter(|_| path.last().is_some_and(|last| last == "tenant"));
            value.map(|value| value.as_bytes().to_vec())
        }
    }

    fn headers(list: &[(&str, &[u8])]) -> Headers {
        list.iter().copied().collect()
    }

    fn sources() -> [Source; 2] {
        [
            Source::Header("x-tenant-id".to_owned()),
            Source::jwt_claim("tenant"),
        ]
    }

    #[test]
    fn the_first_source_that_yields_wins() {
        let sent = headers(&[("x-tenant-id", b"acme")]);
        assert_eq!(
            principal(&sources(), &sent, &Claims(Some("globex"))),
            Some(b"acme".to_vec())
        );
        let empty = headers(&[("x-tenant-id", b"")]);
        assert_eq!(
            principal(&sources(), &empty, &Claims(Some("globex"))),
            Some(b"globex".to_vec())
        );
        assert_eq!(principal(&sources(), &headers(&[]), &Claims(None)), None);
    }

    #[test]
    fn a_header_sent_twice_says_nothing() {
        let sent = headers(&[("x-tenant-id", b"acme"), ("x-tenant-id", b"globex")]);
        assert_eq!(principal(&sources(), &sent, &Claims(None)), None);
    }

    // The SDK's functions for text end the VM if a header is not UTF-8. Made-up tenants come in floods, with long or odd ids.
    #[test]
    fn only_short_clean_text_is_an_id() {
        assert_eq!(
            TenantId::parse("büro;.;1".as_bytes()).unwrap().as_str(),
            "büro;.;1"
        );
        assert_eq!(TenantId::parse(&[b'a'; 256]).unwrap().as_str().len(), 256);
        for wrong in [
            &b""[..],
            b"a\xffb",
            b"a\0b",
            b"a\nb",
            &[b'a'; 257],
            &[b'a'; 65_536],
        ] {
            assert_eq!(TenantId::parse(wrong), None);
        }
    }
}
