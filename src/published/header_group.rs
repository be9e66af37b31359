//! Groups of the response headers that report limits and decisions. An operator can configure which groups clients receive.

use serde::Deserialize;

/// A group of response headers of the same form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub enum HeaderGroup {
    /// `x-bursar-tier`, `x-bursar-model` and all other headers whose names begin with `x-bursar-`.
    #[serde(rename = "bursar")]
    Bursar,
    /// `x-ratelimit-limit-tokens`, `x-ratelimit-remaining-tokens`, `x-ratelimit-reset-tokens`.
    #[serde(rename = "x-ratelimit")]
    XRatelimit,
    /// `ratelimit` and `ratelimit-policy`.
    #[serde(rename = "ratelimit")]
    Ratelimit,
}

/// A set of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderGroups(u8);

impl HeaderGroups {
    /// All groups.
    pub const ALL: Self = Self(0b111);

    /// Whether the group is in this set.
    #[must_use]
    pub fn contains(self, group: HeaderGroup) -> bool {
        self.0 & bit(group) != 0
    }
}

fn bit(group: HeaderGroup) -> u8 {
    match group {
        HeaderGroup::Bursar => 0b001,
        HeaderGroup::XRatelimit => 0b010,
        HeaderGroup::Ratelimit => 0b100,
    }
}

impl FromIterator<HeaderGroup> for HeaderGroups {
    fn from_iter<I: IntoIterator<Item = HeaderGroup>>(groups: I) -> Self {
        Self(groups.into_iter().fold(0, |bits, group| bits | bit(group)))
    }
}
