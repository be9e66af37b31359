//! Who pays: from what a request shows to a tenant id.

/// Longest tenant id in bytes. Enough for a SPIFFE id of ordinary length; the bound keeps keys and logs small.
pub const MAX_ID: usize = 256;

/// The id of a tenant: 1 to [`MAX_ID`] bytes of UTF-8 without control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(String);

impl TenantId {
    /// An id from bytes that a client may have chosen; `None` if they are not one.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let fits = (1..=MAX_ID).contains(&text.len());
        (fits && !text.chars().any(char::is_control)).then(|| Self(text.to_owned()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where to look for the tenant's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A request header, by its lower-case name. Sent twice it says nothing.
    Header(String),
    /// A property of the request or of the proxy, by its path (Envoy's "attributes").
    Property(Vec<String>),
}

impl Source {
    /// A claim of the JWT that Envoy's `jwt_authn` has checked, with `payload_in_metadata: payload`.
    #[must_use]
    pub fn jwt_claim(claim: &str) -> Self {
        Self::Property(path(&[
            "metadata",
            "filter_metadata",
            "envoy.filters.http.jwt_authn",
            "payload",
            claim,
        ]))
    }

    /// The first URI in the client certificate's subject alternative names, such as a SPIFFE id.
    #[must_use]
    pub fn peer_uri_san() -> Self {
        Self::Property(path(&["connection", "uri_san_peer_certificate"]))
    }
}

fn path(segments: &[&str]) -> Vec<String> {
    segments.iter().map(|&segment| segment.to_owned()).collect()
}

/// Read access to the proxy's properties.
pub trait Properties {
    /// The value at `path`, as the bytes that the proxy gives; `None` if there is none.
    fn property(&self, path: &[String]) -> Option<Vec<u8>>;
}

/// The headers of a message: names in lower case, values as any bytes, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(Vec<u8>, Vec<u8>)>);

impl Headers {
    /// Whether there is such a header.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name.as_bytes())
    }

    /// The value of a header that was sent once; `None` if it was not sent, or sent several times.
    #[must_use]
    pub fn only(&self, name: &str) -> Option<&[u8]> {
        let mut values = self.0.iter().filter(|(key, _)| key == name.as_bytes());
        let (_, first) = values.next()?;
        values.next().is_none().then_some(first)
    }
}

/// What the request shows of its tenant: the bytes of the first source that yields any.
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
        Headers(
            list.iter()
                .map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec()))
                .collect(),
        )
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

    // cases.md 41, 44
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
