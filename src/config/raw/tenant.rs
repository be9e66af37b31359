//! Reads plans and tenants, which have most keys in common: by one derived function, which is large.

use serde::de::value::MapAccessDeserializer;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, Visitor,
};
use std::fmt::{self, Formatter};

use super::limits::{Names, OF_PLANS, OF_TENANTS, RawLimits, RawTenant};

pub(super) const PLAN: &str = "plan";
pub(super) const PARENT: &str = "parent";
pub(super) const WAS: &str = "was";
pub(super) const GUARANTEED: &str = "guaranteed";

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
            known: if self.is_tenant { OF_TENANTS } else { OF_PLANS },
            names: &mut names,
            seen: 0,
        };
        let own = RawLimits::deserialize(MapAccessDeserializer::new(limits))?;
        Ok(RawTenant { names, own })
    }
}

/// The keys of the limits in an object, what else a tenant has being read beside them.
struct Limits<'a, A> {
    map: A,
    known: &'static [&'static str],
    names: &'a mut Names,
    /// Which of the names came already, a bit each.
    seen: u8,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Limits<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.map.next_key_seed(Key(self.known))? {
            match key {
                PLAN => {
                    self.once(PLAN, 1)?;
                    self.names.plan = self.map.next_value()?;
                }
                PARENT => {
                    self.once(PARENT, 2)?;
                    self.names.parent = self.map.next_value()?;
                }
                WAS => {
                    self.once(WAS, 4)?;
                    self.names.was = self.map.next_value()?;
                }
                GUARANTEED => {
                    self.once(GUARANTEED, 8)?;
                    self.names.guaranteed = self.map.next_value()?;
                }
                key => return seed.deserialize(key.into_deserializer()).map(Some),
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

impl<'de, A: MapAccess<'de>> Limits<'_, A> {
    /// Refuses a key that came before.
    fn once(&mut self, key: &'static str, bit: u8) -> Result<(), A::Error> {
        if self.seen & bit != 0 {
            return Err(A::Error::duplicate_field(key));
        }
        self.seen |= bit;
        Ok(())
    }
}

/// One of the keys that may stand in an object.
struct Key(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'static str, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Key {
    type Value = &'static str;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("field identifier")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<&'static str, E> {
        let mut all = self.0.iter();
        all.find(|key| **key == text)
            .copied()
            .ok_or_else(|| E::unknown_field(text, self.0))
    }
}
