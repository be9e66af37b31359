//! The configuration as it is written: its keys and their types, and nothing more.
//!
//! The doc comments are the descriptions in the JSON Schema.

use super::Parsed;
use super::path::Path;
use super::read::{Field, Later, Object, Read, Reader, Word};
use crate::number::Number;

/// Objects by their keys. A key may be left out if its type is an `Option`, or where `= default` stands. `as` tells the schema what
/// a type stands for that only the reader knows.
macro_rules! keys {
    ($(
        $(#[$about:meta])*
        struct $name:ident {
            $($(#[$told:meta])* $key:ident $(($spelled:literal))?: $type:ty $(as $shown:literal)? $(= $default:ident)?,)*
        }
    )*) => {$(
        $(#[$about])*
        #[derive(Clone, Debug, Default)]
        #[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
        pub(super) struct $name {
            $(
                $(#[$told])*
                $(#[cfg_attr(all(test, not(target_arch = "wasm32")), schemars(rename = $spelled))])?
                $(#[cfg_attr(all(test, not(target_arch = "wasm32")), schemars(with = $shown))])?
                $(#[cfg_attr(all(test, not(target_arch = "wasm32")), schemars($default))])?
                pub(super) $key: $type,
            )*
        }

        impl $name {
            const FIELDS: &[Field] = &[$(Field {
                name: [$($spelled,)? stringify!($key)][0],
                is_required: !<$type>::IS_OPTIONAL && stringify!($($default)?).is_empty(),
            }),*];
        }

        // `Reader::object` notes in 32 bits which of them it has seen.
        const _: () = assert!($name::FIELDS.len() <= 32);

        impl Object for $name {
            fn set(&mut self, field: usize, json: &mut Reader<'_>, path: &Path<'_>) -> Parsed<()> {
                #[allow(non_camel_case_types, reason = "they are the fields' names")]
                enum Place { $($key),* }
                match field {
                    $(at if at == Place::$key as usize => self.$key.read_over(json, path),)*
                    _ => Ok(()),
                }
            }
        }

        impl Read for $name {
            fn read(json: &mut Reader<'_>, path: &Path<'_>) -> Parsed<Self> {
                let mut object = Self::default();
                json.object(path, Self::FIELDS, &mut object)?;
                Ok(object)
            }

            fn read_over(&mut self, json: &mut Reader<'_>, path: &Path<'_>) -> Parsed<()> {
                json.object(path, Self::FIELDS, self)
            }
        }
    )*};
}

/// Enums by their words; one with a value is the key of an object.
macro_rules! words {
    ($(
        $(#[$about:meta])*
        enum $name:ident {
            $($(#[$told:meta])* $variant:ident $(($value:ty))? = $word:literal,)*
        }
    )*) => {$(
        $(#[$about])*
        #[derive(Clone, Debug)]
        #[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
        pub(super) enum $name {
            $(
                $(#[$told])*
                #[cfg_attr(all(test, not(target_arch = "wasm32")), schemars(rename = $word))]
                $variant $(($value))?,
            )*
        }

        impl Read for $name {
            fn read(json: &mut Reader<'_>, path: &Path<'_>) -> Parsed<Self> {
                const WORDS: &[Word] = &[$(Word {
                    text: $word,
                    has_value: !stringify!($($value)?).is_empty(),
                }),*];
                enum Place { $($variant),* }
                match json.word(path, WORDS)? {
                    $(at if at == Place::$variant as usize => {
                        Ok(Self::$variant $((json.value::<$value>(path, $word)?))?)
                    })*
                    _ => json.wrong(path, "unknown variant"),
                }
            }
        }
    )*};
}

keys! {
    /// Plugin configuration of bursar.
    struct RawConfig {
        /// Hold the request's headers until its body is read. True only where Envoy's
        /// `allow_on_headers_stop_iteration` is true; otherwise every request with a body hangs.
        hold_headers: bool = default,
        /// Longest body in bytes that is held with its headers; longer ones pass while they are read. Keep it under the
        /// listener's `per_connection_buffer_limit_bytes` (Envoy's default is 1 MiB) and under an HTTP/2
        /// `initial_stream_window_size`, or Envoy answers 413 to longer ones. Default 983040.
        hold_bytes: Option<Number>,
        /// What to do when bursar's own state cannot be had.
        failure_mode: RawFailureMode = default,
        /// How long a reservation that nothing settles stays held, as a duration: longer than the slowest answer, from one
        /// second on. Default `30m`.
        reservation_expiry: Option<String>,
        /// Whose request it is.
        tenant: RawTenantRules = default,
        /// One ladder of tiers, best first.
        tiers: Option<Vec<RawTier>>,
        /// Several ladders, instead of `tiers`.
        ladders: Option<Vec<RawLadder>>,
        /// Limits under a name.
        plans: Later as "std::collections::BTreeMap<String, RawLimits>" = default,
        /// Configured tenants, by id.
        tenants: Later as "std::collections::BTreeMap<String, RawTenant>" = default,
    }
}

words! {
    /// What to do when bursar's own state cannot be had.
    #[derive(Default)]
    enum RawFailureMode {
        /// Let the request through unmetered.
        #[default]
        Allow = "allow",
        /// Refuse it with 503.
        Deny = "deny",
    }
}

keys! {
    /// How a request's tenant is found.
    struct RawTenantRules {
        /// Where to look; the first that yields wins. Default: the header `x-tenant-id`.
        from: Option<Vec<RawSource>>,
        /// A request that shows no tenant.
        missing: RawMissing = default,
        /// A tenant that is not configured.
        unknown: RawUnknown = default,
    }
}

words! {
    /// One place to look for the tenant's id.
    enum RawSource {
        /// A request header.
        Header(String) = "header",
        /// A property of the proxy or the request (an Envoy attribute), as its path.
        Property(Vec<String>) = "property",
        /// A claim of the JWT that Envoy's `jwt_authn` filter has checked (with `payload_in_metadata: payload`).
        JwtClaim(String) = "jwt_claim",
        /// The first URI in the client certificate's subject alternative names.
        PeerUriSan(bool) = "peer_uri_san",
    }

    /// A request that shows no tenant.
    #[derive(Default)]
    enum RawMissing {
        /// Refuse it with 401.
        #[default]
        Reject = "reject",
        /// Let it through unmetered.
        Pass = "pass",
        /// Treat it as this tenant's.
        Tenant(String) = "tenant",
    }

    /// A tenant that is not configured.
    #[derive(Default)]
    enum RawUnknown {
        /// Refuse it with 403.
        #[default]
        Reject = "reject",
        /// Give it this plan.
        Plan(String) = "plan",
    }
}

keys! {
    /// Tiers for some models.
    struct RawLadder {
        /// Models that start at the first tier, as globs (`*` stands for any text). A tier's own model always belongs to its ladder.
        matches("match"): Vec<String> = default,
        /// Best first.
        tiers: Vec<RawTier>,
    }

    /// A class of service.
    struct RawTier {
        /// As it stands in `x-bursar-tier` and in metrics.
        name: String,
        /// The model that is put in place of the one that was asked for (the first tier keeps it).
        model: String,
        /// Needed for budgets in usd.
        price: Option<RawPrice>,
        /// The tier's low-water mark: it serves while less than this fraction of the budget remains.
        below: Option<Number>,
        /// All that its model can do besides text. A request that needs more keeps a better tier. Default: all but
        /// `signed_thinking` and `cached_prompt`.
        supports: Option<Vec<RawNeed>>,
        /// The longest answer it gives, in tokens: a larger limit in a request is lowered to this.
        max_output_tokens: Option<Number>,
        /// What all tenants together may use of it, as the upstream's own quota is. Default: no limit.
        capacity: Option<RawCapacity>,
        /// Shorten conversations that are longer than this.
        trim: Option<RawTrim>,
    }

    /// How a tier shortens conversations: chat completions and Anthropic's Messages.
    struct RawTrim {
        /// The oldest turns go until the prompt is expected to have at most so many tokens. What the application says, and the
        /// last turn, stay.
        to_tokens: Number,
    }

    /// This proxy's share of the quota that an upstream has for a model: a token bucket that all tenants share.
    struct RawCapacity {
        /// Tokens that come back in each window, evenly.
        tokens_per_window: Number,
        /// A duration such as `1m`.
        window: String,
        /// Tokens that a full bucket holds. Default: `tokens_per_window`.
        burst: Option<Number>,
        /// Its last part is kept for higher priorities.
        reserved: RawReserved = default,
    }

    /// Fractions of a capacity's `burst` that are kept.
    struct RawReserved {
        /// Only for critical requests. Default 0.2.
        critical: Option<Number>,
        /// Besides, only for standard and critical ones. Default 0.1.
        standard: Option<Number>,
    }
}

words! {
    /// How much a tenant's requests matter where a tier's capacity is short.
    #[derive(Default, Copy)]
    enum RawPriority {
        /// May take all of it.
        Critical = "critical",
        /// All but what is reserved for `critical`.
        #[default]
        Standard = "standard",
        /// What is not reserved at all.
        BestEffort = "best_effort",
    }

    /// What a request may need of a model.
    #[derive(Copy)]
    enum RawNeed {
        /// Calling tools.
        Tools = "tools",
        /// Reading more than text: images, files, sound.
        Images = "images",
        /// Keeping its output to a schema.
        StructuredOutput = "structured_output",
        /// Being told to think, or how much.
        Thinking = "thinking",
        /// Going on with thoughts that were signed for another model.
        SignedThinking = "signed_thinking",
        /// Going on with a prompt that the provider has cached for another model.
        CachedPrompt = "cached_prompt",
    }
}

keys! {
    /// USD per million tokens.
    struct RawPrice {
        /// Input tokens.
        input: Number,
        /// Input tokens that the provider had cached. Default: as `input`.
        cached_input: Option<Number>,
        /// Input tokens that the provider caches now. Default: as `input`.
        cache_write: Option<Number>,
        /// Output tokens, reasoning included.
        output: Number,
    }

    /// What a plan or a tenant may use.
    struct RawLimits {
        /// What may be spent in a window.
        budget: Option<RawBudget>,
        /// How fast it may be spent.
        bucket: Option<RawBucket>,
        /// What happens when the budget is spent. Default: throttle.
        on_exhausted: Option<RawOnExhausted>,
        /// Keep the model that was asked for, whatever remains.
        never_downgrade: Option<bool>,
        /// Takes the place of the last tier's `below`.
        low_water_mark: Option<Number>,
        /// Rather than to refuse a request for what its answer may cost, limit its output to what the budget still holds, if
        /// that is at least so many tokens.
        min_output_tokens: Option<Number>,
        /// How soon answers are to begin. While a tier's do not, requests are sent to the next one whose answers do.
        sla: Option<RawSla>,
        /// Let the marks rise where what remains would not last until the window's end.
        pace: Option<RawPace>,
        /// Leave a tier only when what remains has risen past its mark by this fraction of the budget, or the window ends.
        hysteresis: Option<Number>,
        /// Conversations stay at the tier where they are, within a window of the budget.
        sticky: Option<RawSticky>,
        /// Decide, meter and tell, but change and refuse nothing.
        shadow: Option<bool>,
        /// Names of the tiers that requests may be sent to. Default: all.
        tiers: Option<Vec<String>>,
        /// Name of the last tier that requests may be sent to.
        floor: Option<String>,
        /// Low-water marks in the place of the tiers' own `below`, by the tiers' names.
        below: Marks as "std::collections::BTreeMap<String, Number>" = default,
        /// How much requests matter where a tier's `capacity` is short. Default: `standard`.
        priority: Option<RawPriority>,
    }

    /// What may be spent in a window.
    struct RawBudget {
        /// At the start of each window, in `unit`. Required, in the plan or the tenant.
        initial_budget: Option<Number>,
        /// What is counted. Default: `tokens`.
        unit: Option<RawUnit>,
        /// `hour`, `day`, `week` (from Monday) or `month` by the UTC calendar, a duration such as `90s`, or `none`. Required,
        /// in the plan or the tenant.
        window: Option<String>,
    }
}

words! {
    /// What a budget counts.
    #[derive(Default, Copy)]
    enum RawUnit {
        /// Model tokens, input and output alike.
        #[default]
        Tokens = "tokens",
        /// US dollars, by the tiers' prices.
        Usd = "usd",
    }
}

keys! {
    /// How soon answers are to begin.
    struct RawSla {
        /// Milliseconds within which 95 % of a tier's answers are to begin, from 1 to 131071. Required, in the plan or the tenant.
        p95_ms: Option<Number>,
    }

    /// How conversations stay where they are.
    struct RawSticky {
        /// The request header that names a conversation. Without it: how the conversation begins.
        header: Option<String>,
        /// The share of a low-water mark down to which a conversation stays where it is although the mark is crossed.
        /// Default: 0.5.
        keep: Option<Number>,
    }

    /// How fast the budget may be spent.
    struct RawBucket {
        /// Tokens that come back in each window, evenly. Required, in the plan or the tenant.
        tokens_per_window: Option<Number>,
        /// A duration such as `1m`. Required, in the plan or the tenant.
        window: Option<String>,
        /// Tokens that a full bucket holds. Default: `tokens_per_window`.
        burst: Option<Number>,
        /// The last tier serves while less than this fraction of `burst` is left.
        low_water_mark: Option<Number>,
    }

    /// How the marks rise.
    struct RawPace {
        /// No mark rises above this fraction of the budget. Default: 0.9.
        cap: Option<Number>,
        /// How long it takes for what was spent to count half, as a duration of at least one second. Default: a
        /// forty-eighth of the budget's window.
        half_life: Option<String>,
    }
}

/// What happens when the budget is spent.
// As the schema has it; `OnExhausted` below is how it is read.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    all(test, not(target_arch = "wasm32")),
    derive(schemars::JsonSchema),
    schemars(rename_all = "snake_case", deny_unknown_fields)
)]
pub(super) enum RawOnExhausted {
    /// Refuse with 429 until the window's end.
    Throttle,
    /// Go on at the last tier.
    Degrade {
        /// So far beyond the budget, as a fraction of it.
        overdraft: Number,
    },
}

words! {
    enum OnExhausted {
        Throttle = "throttle",
        Degrade(Degrade) = "degrade",
    }
}

keys! {
    struct Degrade {
        overdraft: Number,
    }
}

impl Read for RawOnExhausted {
    fn read(json: &mut Reader<'_>, path: &Path<'_>) -> Parsed<Self> {
        Ok(match OnExhausted::read(json, path)? {
            OnExhausted::Throttle => Self::Throttle,
            OnExhausted::Degrade(Degrade { overdraft }) => Self::Degrade { overdraft },
        })
    }
}

/// A tenant's plan, and settings of its own in the place of the plan's.
#[derive(Debug, Default)]
#[cfg_attr(
    all(test, not(target_arch = "wasm32")),
    derive(schemars::JsonSchema),
    schemars(deny_unknown_fields)
)]
pub(super) struct RawTenant {
    /// The plan that it is on.
    pub(super) plan: Option<String>,
    /// Its own settings, each as in a plan.
    #[cfg_attr(all(test, not(target_arch = "wasm32")), schemars(flatten))]
    pub(super) own: RawLimits,
    /// It has settings of its own.
    #[cfg_attr(all(test, not(target_arch = "wasm32")), schemars(skip))]
    pub(super) has_own: bool,
}

impl RawTenant {
    const FIELDS: [Field; 1 + RawLimits::FIELDS.len()] = {
        let mut fields = [Field {
            name: "plan",
            is_required: false,
        }; 1 + RawLimits::FIELDS.len()];
        let (_, own) = fields.split_at_mut(1);
        own.copy_from_slice(RawLimits::FIELDS);
        fields
    };
}

impl Object for RawTenant {
    fn set(&mut self, field: usize, json: &mut Reader<'_>, path: &Path<'_>) -> Parsed<()> {
        let Some(field) = field.checked_sub(1) else {
            return self.plan.read_over(json, path);
        };
        self.has_own = true;
        self.own.set(field, json, path)
    }
}

impl Read for RawTenant {
    fn read(json: &mut Reader<'_>, path: &Path<'_>) -> Parsed<Self> {
        let mut tenant = Self::default();
        tenant.read_over(json, path)?;
        Ok(tenant)
    }

    fn read_over(&mut self, json: &mut Reader<'_>, path: &Path<'_>) -> Parsed<()> {
        json.object(path, &Self::FIELDS, self)
    }
}

/// Low-water marks by the names of tiers, in the order of these.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks(pub(super) Vec<(String, Number)>);

impl Read for Marks {
    fn read(json: &mut Reader<'_>, path: &Path<'_>) -> Parsed<Self> {
        let mut marks = Self::default();
        let mut entries = |json: &mut Reader<'_>, name: &str| {
            let mark = Number::read(json, &path.key(name))?;
            match marks.place(name) {
                Ok(_) => json.wrong(path, &format!("`{name}` stands twice")),
                Err(place) => {
                    marks.0.insert(place, (name.to_owned(), mark));
                    Ok(())
                }
            }
        };
        json.entries(path, &mut entries)?;
        Ok(marks)
    }

    fn read_over(&mut self, json: &mut Reader<'_>, path: &Path<'_>) -> Parsed<()> {
        for (name, mark) in Self::read(json, path)?.0 {
            match self.place(&name) {
                Ok(place) => {
                    if let Some(entry) = self.0.get_mut(place) {
                        entry.1 = mark;
                    }
                }
                Err(place) => self.0.insert(place, (name, mark)),
            }
        }
        Ok(())
    }
}

impl Marks {
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0
            .binary_search_by(|(known, _)| known.as_str().cmp(name))
    }
}
