//! Who pays: from what a request shows to a tenant id.

use std::borrow::Borrow;

use crate::name::Name;

/// Longest tenant id in bytes. Enough for a SPIFFE id of ordinary length; the bound keeps keys and logs small.
pub const MAX_ID: usize = 256;

/// The id of a tenant: 1 to [`MAX_ID`] bytes of UTF-8 without control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Name);

impl TenantId {
    /// An id from bytes that a client may have chosen; `None` if they are not one.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let fits = (1..=MAX_ID).contains(&text.len());
        (fits && !text.chars().any(char::is_control)).then(|| Self(text.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id, to be shared.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.0
    }
}

impl Borrow<str> for TenantId {
    fn borrow(&self) -> &str {
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
///
/// They stay in the proxy's form, so that none is copied: the number of pairs, the sizes of each name and value, then the
/// names and values themselves, each with a NUL behind it. All numbers are 32 bits, little-endian. What is not in that form ends
/// the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<u8>);

/// Where names and values are that are still to be told.
struct Places<'a> {
    sizes: std::slice::Iter<'a, [u8; 8]>,
    texts: &'a [u8],
    at: usize,
}

/// Where a name and its value are.
struct Place {
    start: usize,
    name: usize,
    value: usize,
}

impl Headers {
    /// Headers as the proxy gives them.
    #[must_use]
    pub fn in_form(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes that the proxy takes.
    #[must_use]
    pub fn as_form(&self) -> &[u8] {
        &self.0
    }

    /// All names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let places = self.places();
        let texts = places.texts;
        places.map_while(move |place| Some((place.name_in(texts)?, place.value_in(texts)?)))
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        let places = self.places();
        let texts = places.texts;
        places.filter_map(move |place| place.name_in(texts))
    }

    /// The values of a header.
    fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let places = self.places();
        let texts = places.texts;
        places
            .filter(move |place| place.is(name, texts))
            .filter_map(move |place| place.value_in(texts))
    }

    fn places(&self) -> Places<'_> {
        let parts = || {
            let (count, rest) = self.0.split_first_chunk::<4>()?;
            let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
            rest.split_at_checked(count.checked_mul(8)?)
        };
        let (sizes, texts) = parts().unwrap_or_default();
        Places {
            sizes: sizes.as_chunks().0.iter(),
            texts,
            at: 0,
        }
    }

    /// Whether there is such a header.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// The value of a header that was sent once; `None` if it was not sent, or sent several times.
    #[must_use]
    pub fn only(&self, name: &str) -> Option<&[u8]> {
        let mut values = self.values(name);
        let first = values.next()?;
        values.next().is_none().then_some(first)
    }

    /// The same of several headers, in one pass.
    #[must_use]
    pub fn only_of<const N: usize>(&self, names: [&str; N]) -> [Option<&[u8]>; N] {
        let mut found = [(None, 0_usize); N];
        let places = self.places();
        let texts = places.texts;
        for place in places {
            // Few names are as long as one of those.
            if names.iter().all(|name| name.len() != place.name) {
                continue;
            }
            for (wanted, (first, count)) in names.iter().zip(&mut found) {
                if place.is(wanted, texts) {
                    *first = first.or_else(|| place.value_in(texts));
                    *count = count.saturating_add(1);
                }
            }
        }
        found.map(|(first, count)| first.filter(|_| count == 1))
    }
}

impl Iterator for Places<'_> {
    type Item = Place;

    fn next(&mut self) -> Option<Place> {
        let [a, b, c, d, e, f, g, h] = *self.sizes.next()?;
        let size = |bytes| usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
        let place = Place {
            start: self.at,
            name: size([a, b, c, d]),
            value: size([e, f, g, h]),
        };
        // Each has a NUL behind it.
        let both = place.name.saturating_add(place.value).saturating_add(2);
        self.at = self.at.saturating_add(both);
        (self.at <= self.texts.len()).then_some(place)
    }
}

impl Place {
    /// Whether this is its name. Most are not as long.
    fn is(&self, name: &str, texts: &[u8]) -> bool {
        self.name == name.len() && self.name_in(texts) == Some(name.as_bytes())
    }

    fn name_in<'a>(&self, texts: &'a [u8]) -> Option<&'a [u8]> {
        texts.get(self.start..)?.get(..self.name)
    }

    fn value_in<'a>(&self, texts: &'a [u8]) -> Option<&'a [u8]> {
        let start = self.start.saturating_add(self.name).saturating_add(1);
        texts.get(start..)?.get(..self.value)
    }
}

/// Puts pairs into the proxy's form.
impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
        let (mut count, mut sizes, mut texts) = (0_usize, Vec::new(), Vec::new());
        for (name, value) in pairs {
            count = count.saturating_add(1);
            for text in [name.as_ref(), value.as_ref()] {
                sizes.extend(number(text.len()));
                texts.extend(text);
                texts.push(0);
            }
        }
        Self([&number(count)[..], &sizes, &texts].concat())
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
    fn headers_are_read_from_the_proxys_form_as_far_as_it_goes() {
        let form = b"\x02\0\0\0\x01\0\0\0\x02\0\0\0\x01\0\0\0\0\0\0\0a\0\xff\0\0b\0\0";
        let both = headers(&[("a", b"\xff\0"), ("b", b"")]);
        assert_eq!(both.as_form(), form);
        assert_eq!(Headers::in_form(form.to_vec()), both);
        let pairs: Vec<_> = both.iter().collect();
        assert_eq!(pairs, [(&b"a"[..], &b"\xff\0"[..]), (b"b", b"")]);
        assert!(both.has("b") && !both.has("c"));
        for end in 0..form.len() {
            let part = Headers::in_form(form[..end].to_vec());
            assert!(part.iter().count() < 2, "{end} bytes");
        }
        // More is promised than is there.
        let form = b"\xff\xff\xff\xff\x01\0\0\0\x02\0\0\0a\0bc\0";
        assert_eq!(Headers::in_form(form.to_vec()).iter().count(), 0);
    }

    #[test]
    fn a_header_sent_twice_says_nothing() {
        let sent = headers(&[("x-tenant-id", b"acme"), ("x-tenant-id", b"globex")]);
        assert_eq!(principal(&sources(), &sent, &Claims(None)), None);
        let sent = headers(&[("a", b"1"), ("b", b"2"), ("a", b"1"), ("c", b"")]);
        let found = sent.only_of(["b", "a", "c", "d"]);
        assert_eq!(found, ["b", "a", "c", "d"].map(|name| sent.only(name)));
        assert_eq!(found, [Some(&b"2"[..]), None, Some(b""), None]);
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
