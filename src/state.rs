//! What outlives a request: [`record`] says what the bytes mean, [`store`] how they are changed by
//! compare-and-swap, [`slots`] where tenants stand that are not configured, [`subjects`] where subjects do.
//! [`shared_budgets`] and [`shared_buckets`]: the limits of a record that other proxies share.
//! [`duty`]: which VM does what one of them has to.

pub mod duty;
pub mod record;
pub mod shared_buckets;
pub mod shared_budgets;
pub mod slots;
pub mod store;
pub mod subjects;
