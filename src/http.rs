//! What a message shows besides its body: headers, in the form that the proxy uses, and the proxy's properties.

/// Read access to the proxy's properties.
pub trait Properties {
    /// The value at `path`, in the proxy's bytes; `None` if there is none.
    fn property(&self, path: &[String]) -> Option<Vec<u8>>;
}

/// The headers of a message in their order. Names are in lower case; values may be any bytes.
///
/// The headers stay in the proxy's form, so that none is copied: the number of pairs, the sizes of each name and value, then the
/// names and values themselves, each followed by a NUL. All numbers are 32 bits, little-endian. The list ends at the first malformed
/// pair. The position of each header is found once, since a request's headers are searched many times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    form: Vec<u8>,
    places: Vec<Place>,
    /// For each length of a name: the first header with a name of that length, counted from 1; 0: none. Few names have the same length, so
    /// a name is found without a look at the others.
    firsts: [u32; LENGTHS],
}

/// The position of a header's name in the proxy's form; the header's value follows the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    start: usize,
    name: usize,
    value: usize,
    /// The next header with a name of the same length, as in [`Headers::firsts`].
    next: u32,
}

/// Longer names are found with those of the lengths that leave the same remainder.
const LENGTHS: usize = 32;

impl Headers {
    /// Headers as the proxy gives them.
    #[must_use]
    pub fn in_form(bytes: Vec<u8>) -> Self {
        let mut places = places(&bytes);
        let mut firsts = [0; LENGTHS];
        for (index, place) in places.iter_mut().enumerate().rev() {
            if let Some(first) = firsts.get_mut(place.name % LENGTHS) {
                let number = u32::try_from(index.saturating_add(1)).unwrap_or(0);
                place.next = std::mem::replace(first, number);
            }
        }
        Self {
            places,
            firsts,
            form: bytes,
        }
    }

    /// The bytes in the proxy's form.
    #[must_use]
    pub fn as_form(&self) -> &[u8] {
        &self.form
    }

    /// All names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let form = self.form.as_slice();
        let places = self.places.iter();
        places.filter_map(move |place| Some((place.name_in(form)?, place.value_in(form)?)))
    }

    /// The names that begin with one of these bytes.
    pub(crate) fn names_from<const N: usize>(
        &self,
        initials: [u8; N],
    ) -> impl Iterator<Item = &[u8]> {
        let form = self.form.as_slice();
        let begins = move |place: &&Place| {
            let initial = form.get(place.start);
            initial.is_some_and(|initial| initials.iter().any(|one| one == initial))
        };
        let places = self.places.iter().filter(begins);
        places.filter_map(move |place| place.name_in(form))
    }

    /// The values of a header.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let at = |number: u32| {
            let index = usize::try_from(number.checked_sub(1)?).ok()?;
            self.places.get(index)
        };
        let first = self.firsts.get(name.len() % LENGTHS);
        let first = first.and_then(|&first| at(first));
        let same_length = std::iter::successors(first, move |place| at(place.next));
        same_length
            .filter(move |place| place.name_in(&self.form) == Some(name.as_bytes()))
            .filter_map(|place| place.value_in(&self.form))
    }

    /// Whether there is a header of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// The value of a header that was sent exactly once; `None` if it was not sent, or was sent several times.
    #[must_use]
    pub fn only(&self, name: &str) -> Option<&[u8]> {
        let mut values = self.values(name);
        let first = values.next()?;
        values.next().is_none().then_some(first)
    }

    /// The body's length in bytes, if the headers announce it.
    #[must_use]
    pub fn body_length(&self) -> Option<u64> {
        let digits = self.only("content-length")?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// As [`Self::only`], for several headers.
    #[must_use]
    pub fn only_of<const N: usize>(&self, names: [&str; N]) -> [Option<&[u8]>; N] {
        names.map(|name| self.only(name))
    }
}

/// The positions of all names and values.
fn places(form: &[u8]) -> Vec<Place> {
    let sizes = || {
        let (count, rest) = form.split_first_chunk::<4>()?;
        let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
        rest.split_at_checked(count.checked_mul(8)?)
    };
    let Some((sizes, texts)) = sizes() else {
        return Vec::new();
    };
    let mut start = form.len().saturating_sub(texts.len());
    let mut places = Vec::with_capacity(sizes.len() / 8);
    for [a, b, c, d, e, f, g, h] in sizes.as_chunks::<8>().0 {
        let size = |bytes| usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
        let place = Place {
            start,
            name: size([*a, *b, *c, *d]),
            value: size([*e, *f, *g, *h]),
            next: 0,
        };
        // A name and a value each have a NUL behind them.
        let both = place.name.saturating_add(place.value).saturating_add(2);
        start = start.saturating_add(both);
        if start > form.len() {
            break;
        }
        places.push(place);
    }
    places
}

impl Place {
    fn name_in<'a>(&self, form: &'a [u8]) -> Option<&'a [u8]> {
        // The sum does not overflow: both lie within the form.
        form.get(self.start..self.start.wrapping_add(self.name))
    }

    fn value_in<'a>(&self, form: &'a [u8]) -> Option<&'a [u8]> {
        let start = self.start.wrapping_add(self.name).wrapping_add(1);
        form.get(start..start.wrapping_add(self.value))
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
        Self::in_form([&number(count)[..], &sizes, &texts].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn headers(list: &[(&str, &[u8])]) -> Headers {
        list.iter().copied().collect()
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
        // The form promises more bytes than there are.
        let form = b"\xff\xff\xff\xff\x01\0\0\0\x02\0\0\0a\0bc\0";
        assert_eq!(Headers::in_form(form.to_vec()).iter().count(), 0);
    }

    #[test]
    fn a_header_sent_twice_has_no_one_value() {
        let sent = headers(&[("a", b"1"), ("b", b"2"), ("a", b"1"), ("c", b"")]);
        let found = sent.only_of(["b", "a", "c", "d"]);
        assert_eq!(found, ["b", "a", "c", "d"].map(|name| sent.only(name)));
        assert_eq!(found, [Some(&b"2"[..]), None, Some(b""), None]);
    }
}
