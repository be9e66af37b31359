//! Reads the text of a configuration into the types of [`super::raw`] by serde. An error has the path, the line and the column.

use std::collections::BTreeMap;
use std::fmt::{self, Formatter};
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Unexpected, Visitor};
use serde_json::value::RawValue;
use serde_path_to_error::{Segment, Track};

use super::path::Path;
use super::{ConfigError, Parsed, fault};
use crate::body::number::{Number, NumberError};

/// The text of an object whose entries are read one by one, since they may be many; or nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deferred<'a>(Option<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Deferred<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|text| Self(Some(text)))
    }
}

/// Reads the whole configuration.
pub(super) fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Parsed<T> {
    let mut json = serde_json::Deserializer::from_str(text);
    let mut track = Track::new();
    let read = T::deserialize(serde_path_to_error::Deserializer::new(
        &mut json, &mut track,
    ));
    let place = Location {
        path: &Path::Top,
        text,
        start: text,
    };
    let read = read.map_err(|error| place.fault(&error, &track.path()))?;
    json.end()
        .map_err(|error| place.fault(&error, &Track::new().path()))?;
    Ok(read)
}

impl<'a> Deferred<'a> {
    /// Calls `each` with every entry and its name. `text`: the whole configuration; `path`: the path of the object.
    pub(super) fn entries<T: Deserialize<'a>>(
        self,
        text: &'a str,
        path: &Path<'_>,
        mut each: impl FnMut(&str, T) -> Parsed<()>,
    ) -> Parsed<()> {
        let Some(start) = self.0.map(RawValue::get) else {
            return Ok(());
        };
        let mut json = serde_json::Deserializer::from_str(start);
        let mut track = Track::new();
        let mut fault = None;
        let entries = Entries {
            each: |name: &str, value| {
                each(name, value)
                    .map_err(|error| fault = Some(error))
                    .is_ok()
            },
            value: PhantomData,
        };
        let read =
            serde_path_to_error::Deserializer::new(&mut json, &mut track).deserialize_map(entries);
        match (fault, read) {
            (Some(fault), _) => Err(fault),
            (None, Err(error)) => Err(Location { path, text, start }.fault(&error, &track.path())),
            (None, Ok(())) => Ok(()),
        }
    }
}

/// The location of a part of the text.
struct Location<'a> {
    path: &'a Path<'a>,
    text: &'a str,
    /// The part, up to the end of its value.
    start: &'a str,
}

impl Location<'_> {
    /// The error with its path from the top, and its line and column in the whole text.
    fn fault(&self, error: &serde_json::Error, within: &serde_path_to_error::Path) -> ConfigError {
        let message = error.to_string();
        let mut path = self.path.text();
        // A key that could not be read is not part of the path.
        for segment in within
            .iter()
            .filter(|segment| !matches!(segment, Segment::Unknown))
        {
            if !path.is_empty() && !matches!(segment, Segment::Seq { .. }) {
                path.push('.');
            }
            path.push_str(&segment.to_string());
        }
        // serde reports a duplicate for the object, and not for its key.
        if let Some(rest) = message.strip_prefix("duplicate field `") {
            let dot = if path.is_empty() { "" } else { "." };
            path = [&path, dot, rest.split('`').next().unwrap_or_default()].concat();
        }
        let place = format!(" at line {} column {}", error.line(), error.column());
        let reason = match message.strip_suffix(&place) {
            Some(reason) => {
                let (line, column) = self.absolute(error);
                let word = within.iter().next_back().map(ToString::to_string);
                let reason = in_operators_words(reason, &word.unwrap_or_default());
                format!("{reason} at line {line} column {column}")
            }
            None => message,
        };
        fault(path, reason)
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

/// Rewords serde's reasons that use terms of Rust. `word`: the key or value at fault.
fn in_operators_words(reason: &str, word: &str) -> String {
    match reason {
        "invalid type: unit variant, expected newtype variant" => {
            format!("`{word}` needs a value: {{\"{word}\": …}}")
        }
        reason => reason.to_owned(),
    }
}

/// Reads an object's entries, up to the first that is refused.
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
                    return Err(A::Error::custom(format_args!("`{name}` stands twice")));
                }
                all.insert(name, value);
            }
            Ok(all)
        }
    }

    deserializer.deserialize_map(Unique(PhantomData))
}

/// Implements `Deserialize` for types that derive it as a function of their own: from objects only, where serde also accepts lists.
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

/// From the digits as they are written, so that none is rounded. A protobuf Struct (Istio's WasmPlugin) knows only doubles, so that
/// `1e6` and `1000000.0` stand for integers, too.
impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(deserializer)?.get();
        let quoted: String;
        let found = match text.as_bytes().first() {
            Some(b'"') => {
                quoted = serde_json::from_str(text).unwrap_or_default();
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
