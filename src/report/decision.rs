//! A decision, in the form that is shown to callers and operators.

use std::fmt;

use crate::base::name::Name;
use crate::base::text::Text;

/// A decision's fields. Texts that a client chose are made [`plain`].
#[derive(Clone, Debug)]
pub struct Decided {
    /// The tier that serves the request, or would have served it.
    pub tier: Text,
    /// The requested model.
    pub requested_model: Text,
    /// The model that is sent to the upstream.
    pub model: Text,
    /// `admit`, `downgrade` or `throttle`.
    pub decision: &'static str,
    /// The decision's reason; empty for a plain one.
    pub reason: &'static str,
}

/// The decision that shadow mode did not enforce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// `admit`, `downgrade`, `throttle`, or `refuse` if something other than a tenant's limit would have refused the request.
    pub decision: &'static str,
    /// The tier that would have served the request, if it differs from the tier that serves it; else empty.
    pub tier: String,
    /// The model that would have served the request, if it differs from the model that serves it; else empty.
    pub model: String,
    /// The decision's reason; empty for a plain one.
    pub reason: &'static str,
    /// Tokens that each answer would have been limited to.
    pub most_output: Option<u64>,
}

impl fmt::Display for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.decision)?;
        let parts = [
            ("tier", self.tier.as_str()),
            ("model", self.model.as_str()),
            ("reason", self.reason),
        ];
        for (key, value) in parts.into_iter().filter(|(_, value)| !value.is_empty()) {
            write!(f, ";{key}={value}")?;
        }
        match self.most_output {
            Some(most) => write!(f, ";max_output_tokens={most}"),
            None => Ok(()),
        }
    }
}

/// Text that a client chose, made safe for a header or a log: visible ASCII and spaces, at most 256 bytes.
#[must_use]
pub fn plain(text: &str) -> String {
    let visible = |c: char| {
        if c.is_ascii_graphic() || c == ' ' {
            c
        } else {
            '?'
        }
    };
    if is_plain(text) {
        return text.to_owned();
    }
    text.chars().take(256).map(visible).collect()
}

/// A name that a client may have chosen, made safe for a header or a log.
#[must_use]
pub fn plain_name(name: &Name) -> Text {
    if is_plain(name) {
        name.into()
    } else {
        plain(name).into()
    }
}

fn is_plain(text: &str) -> bool {
    text.len() <= 256 && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_clients_text_cannot_break_a_header_or_a_log() {
        assert_eq!(plain("gpt\r\nx: y\u{e9}"), "gpt??x: y?");
        assert_eq!(plain(&"x".repeat(300)).len(), 256);
    }
}
