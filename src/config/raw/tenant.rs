//! Reads plans and tenants. They have most keys in common, so both are read by the same derived function, which is large.

use serde::de::value::MapAccessDeserializer;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, Visitor,
};
use std::fmt::{self, Formatter};

use super::limits::{Names, OF_TENANTS, RawLimits, RawTenant};

pub(super) const PLAN: &str = "plan";
pub(super) const PARENT: &str = "parent";
pub(super) const WAS: &str = "was";
pub(super) const GUARANTEED: &str = "guaranteed";

/// The keys that a tenant has and a plan has not.
const NAMES: [&str; 4] = [PLAN, PARENT, WAS, GUARANTEED];

impl<'de> Deserialize<'de> for RawLimits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Object { is_tenant: false };
        Ok(deserializer.deserialize_map(object)?.own)
    }
}

impl<'de> Deserialize<'de> for RawTenant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Object { is_tenant: true })
    }
}

/// The object of a plan, or of a tenant.
struct Object {
    is_tenant: bool,
}

impl<'de> Visitor<'de> for Object {
    type Value = RawTenant;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawTenant, A::Error> {
        let mut names = Names::default();
        let limits = Limits {
            map,
            is_tenant: self.is_tenant,
            names: &mut names,
            seen: [false; NAMES.len()],
        };
        let own = RawLimits::deserialize(MapAccessDeserializer::new(limits))?;
        Ok(RawTenant { names, own })
    }
}

/// Passes on the keys of the limits in an object, and reads a tenant's other keys itself.
struct Limits<'a, A> {
    map: A,
    is_tenant: bool,
    names: &'a mut Names,
    /// Which of the [`NAMES`] have occurred.
    seen: [bool; NAMES.len()],
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Limits<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        let is_tenant = self.is_tenant;
        let mut key = Key { seed, is_tenant };
        loop {
            let (name, seed) = match self.map.next_key_seed(key)? {
                None => return Ok(None),
                Some(Found::Limit(key)) => return Ok(Some(key)),
                Some(Found::Name(name, seed)) => (name, seed),
            };
            self.name(name)?;
            key = Key { seed, is_tenant };
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

impl<'de, A: MapAccess<'de>> Limits<'_, A> {
    /// Reads the value of one of the [`NAMES`], each of which may occur once.
    fn name(&mut self, place: usize) -> Result<(), A::Error> {
        let seen = self.seen.get_mut(place);
        if seen.is_none_or(|seen| std::mem::replace(seen, true)) {
            let name = NAMES.get(place).copied();
            return Err(A::Error::duplicate_field(name.unwrap_or_default()));
        }
        match place {
            0 => self.names.plan = self.map.next_value()?,
            1 => self.names.parent = self.map.next_value()?,
            2 => self.names.was = self.map.next_value()?,
            _ => self.names.guaranteed = self.map.next_value()?,
        }
        Ok(())
    }
}

/// A key that was read: an index of [`NAMES`], or a key of the limits.
enum Found<K, T> {
    Name(usize, K),
    Limit(T),
}

/// Reads a key.
struct Key<K> {
    seed: K,
    is_tenant: bool,
}

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for Key<K> {
    type Value = Found<K, K::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl<'de, K: DeserializeSeed<'de>> Visitor<'de> for Key<K> {
    type Value = Found<K, K::Value>;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("field identifier")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        if !self.is_tenant {
            return self
                .seed
                .deserialize(text.into_deserializer())
                .map(Found::Limit);
        }
        if let Some(place) = NAMES.iter().position(|name| *name == text) {
            return Ok(Found::Name(place, self.seed));
        }
        let key: Result<_, E> = self.seed.deserialize(text.into_deserializer());
        key.map(Found::Limit)
            .map_err(|_| E::unknown_field(text, OF_TENANTS))
    }
}
