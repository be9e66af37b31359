//! What the other modules are built on: numbers with their [`units`], shared [`names`](name) and [`text`], [globs](glob), stored bytes, and a
//! hash whose values may be stored.

pub(crate) mod bytes;
pub mod compare;
pub mod glob;
pub(crate) mod hash;
pub mod name;
pub mod text;
pub mod units;
