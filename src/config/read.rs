//! Reads the text of a configuration into the types of [`super::raw`] with serde. An error carries the path, the line and the column.

use std::collections::BTreeMap;
use std::fmt::{self, Formatter};
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Unexpected, Visitor};
use serde_json::value::RawValue;

use super::path::Path;
use super::place::{About, Place, push_key};
use super::{ConfigError, Parsed, fault};
use crate::body::number::{Number, NumberError};

/// The text of an object that may have so many entries that they are read one by one; empty if there is no such object.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deferred<'a>(Option<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Deferred<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|text| Self(Some(text)))
    }
}

/// Reads the whole configuration.
pub(super) fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Parsed<T> {
    let mut json = serde_json::Deserializer::from_slice(text.as_bytes());
    let read = T::deserialize(&mut json);
    let place = Location {
        path: &Path::Top,
        text,
        start: text,
    };
    let read = read.map_err(|error| place.fault(&error))?;
    json.end().map_err(|error| place.fault(&error))?;
    Ok(read)
}

impl<'a> Deferred<'a> {
    /// Calls `each` with the name and value of every entry. `text`: the whole configuration; `path`: the path of the object.
    pub(super) fn entries<T: Deserialize<'a>>(
        self,
        text: &'a str,
        path: &Path<'_>,
        mut each: impl FnMut(&str, T) -> Parsed<()>,
    ) -> Parsed<()> {
        let Some(start) = self.0.map(RawValue::get) else {
            return Ok(());
        };
        let mut json = serde_json::Deserializer::from_slice(start.as_bytes());
        let mut fault = None;
        let entries = Entries {
            each: |name: &str, value| {
                each(name, value)
                    .map_err(|error| fault = Some(error))
                    .is_ok()
            },
            value: PhantomData,
        };
        let read = json.deserialize_map(entries);
        match (fault, read) {
            (Some(fault), _) => Err(fault),
            (None, Err(error)) => Err(Location { path, text, start }.fault(&error)),
            (None, Ok(())) => Ok(()),
        }
    }
}

/// The location of a part of the text.
struct Location<'a> {
    path: &'a Path<'a>,
    text: &'a str,
    /// The text of this part, up to the end of its value.
    start: &'a str,
}

impl Location<'_> {
    /// The error with its path from the top, and its line and column in the whole text.
    fn fault(&self, error: &serde_json::Error) -> ConfigError {
        let message = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let reason = message.strip_suffix(&place).unwrap_or(&message);
        let (read, about) = self.read(error, reason);
        let place = Place::of(self.start, read);
        let mut path = place.path(self.path, about);
        let (line, column) = self.absolute(error);
        let reason = match reason {
            // serde's message uses Rust's terms.
            "invalid type: unit variant, expected newtype variant" => {
                let word = place.text();
                push_key(&mut path, &word);
                format!("`{word}` needs a value: {{\"{word}\": …}}")
            }
            reason => reason.to_owned(),
        };
        fault(path, format!("{reason} at line {line} column {column}"))
    }

    /// How many bytes were read before the fault, and the value to which the fault refers. The reported column may be that of the
    /// unexpected byte.
    fn read(&self, error: &serde_json::Error, reason: &str) -> (usize, About) {
        let lines = self.start.split_inclusive('\n');
        let before = lines.take(error.line().saturating_sub(1));
        let before = before.fold(0_usize, |sum, line| sum.saturating_add(line.len()));
        let read = before.saturating_add(error.column());
        let is_before_comma = self.start.as_bytes().get(read) == Some(&b',');
        let is = |start: &&str| reason.starts_with(start);
        match reason {
            // An object that represents an enum has exactly one key.
            "expected value" if is_before_comma => (read, About::Around),
            "expected value" => (read.saturating_sub(1), About::Value),
            _ if reason.starts_with("missing field") || reason.ends_with(TWICE) => {
                (read, About::Object)
            }
            _ if AT_THE_END.iter().any(is) => (read, About::Around),
            _ if AROUND.iter().any(is) => (read.saturating_sub(1), About::Around),
            _ => (read, About::Value),
        }
    }

    /// Line and column in the whole text, counted from 1.
    fn absolute(&self, error: &serde_json::Error) -> (usize, usize) {
        let before = (self.start.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let before = self.text.get(..before).unwrap_or_default();
        let lines = before.matches('\n').count();
        let column = before
            .len()
            .saturating_sub(before.rfind('\n').map_or(0, |at| at.saturating_add(1)));
        let column = if error.line() == 1 { column } else { 0 };
        (
            lines.saturating_add(error.line()),
            column.saturating_add(error.column()),
        )
    }
}

/// How serde_json's messages begin if they refer to an object or a list, rather than to a value in it.
const AROUND: [&str; 5] = [
    "trailing characters",
    "expected `,`",
    "expected `:`",
    "trailing comma",
    "key must be a string",
];
const AT_THE_END: [&str; 2] = ["EOF while parsing an object", "EOF while parsing a list"];

/// How our own message ends if a name occurs twice.
const TWICE: &str = "` stands twice";

/// Reads an object's entries, up to the first one that is refused.
struct Entries<F, T> {
    each: F,
    value: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>, F: FnMut(&str, T) -> bool> Visitor<'de> for Entries<F, T> {
    type Value = ();

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            if !(self.each)(&name, map.next_value()?) {
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

/// Reads a map in which each name occurs once.
pub(super) fn unique<'de, D, T>(deserializer: D) -> Result<BTreeMap<String, T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Unique<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Unique<T> {
        type Value = BTreeMap<String, T>;

        fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut all = BTreeMap::new();
            while let Some(name) = map.next_key::<String>()? {
                let value = map.next_value()?;
                if all.contains_key(&name) {
                    return Err(A::Error::custom(format_args!("`{name}{TWICE}")));
                }
                all.insert(name, value);
            }
            Ok(all)
        }
    }

    deserializer.deserialize_map(Unique(PhantomData))
}

/// Implements `Deserialize` for types that derive it as an inherent function. These types accept only objects, while serde would also
/// accept lists.
macro_rules! objects {
    ($($type:ident),* $(,)?) => {$(
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Object;

                impl<'de> serde::de::Visitor<'de> for Object {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<$type, A::Error> {
                        $type::deserialize(serde::de::value::MapAccessDeserializer::new(map))
                    }
                }

                deserializer.deserialize_map(Object)
            }
        }
    )*};
}
pub(super) use objects;

/// Reads the digits as they are written, so that no number is rounded. A protobuf Struct (Istio's WasmPlugin) has only doubles, so
/// `1e6` and `1000000.0` are accepted as integers, too.
impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(deserializer)?.get();
        let quoted: String;
        let found = match text.as_bytes().first() {
            Some(b'"') => {
                quoted = serde_json::from_slice(text.as_bytes()).unwrap_or_default();
                Unexpected::Str(&quoted)
            }
            Some(b'[') => Unexpected::Seq,
            Some(b'{') => Unexpected::Map,
            Some(b'n') => Unexpected::Unit,
            Some(b't' | b'f') => Unexpected::Bool(text == "true"),
            _ => {
                return Self::parse(text).map_err(|error| match error {
                    NumberError::Negative => D::Error::custom("must not be negative"),
                    NumberError::Invalid => D::Error::custom("invalid number"),
                });
            }
        };
        Err(D::Error::invalid_type(found, &"a number"))
    }
}

#[cfg(test)]
mod tests;
