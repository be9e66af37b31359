//! What bursar reports: [`metrics`] and [`log_fields`] to operators, [`headers`] and [`refusal`] to callers, [`self_service`]
//! to callers that query their limits, and [`standing`] to all.

pub mod decision;
pub mod headers;
pub mod log_fields;
pub mod metrics;
pub(crate) mod overview;
pub mod refusal;
pub mod self_service;
pub mod settlement;
pub mod standing;
