//! Bodies as they stream: reading JSON, server-sent events and AWS event streams, and changing a few bytes of them.
//!
//! Nothing here depends on a provider, and nothing holds a whole body.

pub mod base64;
pub mod eventstream;
pub mod json;
pub mod number;
pub mod rewrite;
pub mod sse;
