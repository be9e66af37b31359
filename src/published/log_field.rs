//! Fields of the access log: their names, defined once, and the set of fields that an operator wants as separate properties.

use serde::Deserialize;

/// What the access log can record of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub enum LogField {
    /// The request's tenant.
    Tenant,
    /// The tenant's plan.
    Plan,
    /// The tier that serves the request.
    Tier,
    /// The model that the client requested.
    RequestedModel,
    /// The model that was sent upstream.
    Model,
    /// `admit`, `downgrade` or `throttle`.
    Decision,
    /// The reason of the decision; absent if the decision is plain.
    Reason,
    /// The limit that refuses the request or lowers its tier.
    Limit,
    /// The low-water mark by which the request was lowered, as a fraction of the budget.
    Mark,
    /// What shadow mode would have done.
    Shadow,
    /// How many messages bursar left out of the conversation.
    TrimmedMessages,
    /// Tokens of the prompt.
    InputTokens,
    /// Tokens of the prompt that the provider had cached.
    CachedTokens,
    /// Tokens of the answer.
    OutputTokens,
    /// What the budget was charged, in its unit (tokens without a budget).
    Charged,
    /// What the request cost, in millionths of a dollar; 0 if its model has no price.
    Spend,
    /// What the charge is based on: `usage`, `estimate` or `none`.
    SettledBy,
    /// What is left of the budget, in its unit.
    Remaining,
    /// Why the upstream refused the request.
    UpstreamRefusal,
    /// The provider's reported total of tokens, if input and output do not add up to it.
    ReportedTotal,
}

/// Defines the name of each field.
macro_rules! names {
    ($($field:ident $name:literal,)*) => {
        impl LogField {
            /// The field's name among all fields of a request.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$field => $name,)* }
            }

            /// The name of the field's own property: the key in the filter state, to which the proxy adds the prefix `wasm.`.
            #[must_use]
            pub fn property(self) -> &'static str {
                match self { $(Self::$field => concat!("bursar_", $name),)* }
            }

            /// The field's name as a key within a JSON object, after another entry.
            #[must_use]
            pub(crate) fn key(self) -> &'static str {
                match self { $(Self::$field => concat!(",\"", $name, "\":"),)* }
            }
        }
    };
}

names! {
    Tenant "tenant",
    Plan "plan",
    Tier "tier",
    RequestedModel "requested_model",
    Model "model",
    Decision "decision",
    Reason "reason",
    Limit "limit",
    Mark "mark",
    Shadow "shadow",
    TrimmedMessages "trimmed_messages",
    InputTokens "input_tokens",
    CachedTokens "cached_tokens",
    OutputTokens "output_tokens",
    Charged "charged",
    Spend "spend",
    SettledBy "settled_by",
    Remaining "remaining",
    UpstreamRefusal "upstream_refusal",
    ReportedTotal "reported_total",
}

impl LogField {
    fn bit(self) -> u32 {
        1_u32.checked_shl(self as u32).unwrap_or(0)
    }
}

/// A set of fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogFields(u32);

impl LogFields {
    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the field is in the set.
    #[must_use]
    pub fn contains(self, field: LogField) -> bool {
        self.0 & field.bit() != 0
    }
}

impl FromIterator<LogField> for LogFields {
    fn from_iter<I: IntoIterator<Item = LogField>>(fields: I) -> Self {
        Self(fields.into_iter().fold(0, |bits, field| bits | field.bit()))
    }
}
