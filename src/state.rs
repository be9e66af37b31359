//! State that outlives a request. [`record`] defines what the stored bytes mean, [`store`] how they are changed by compare-and-swap.
//! [`slots`] defines the keys of tenants that are not configured, [`subjects`] those of subjects. [`shared_budgets`] and [`shared_buckets`]
//! are the limits of a record that other proxies share. [`duty`] decides which VM does what only one VM should do.

pub mod duty;
pub mod record;
pub mod shared_buckets;
pub mod shared_budgets;
pub mod slots;
pub mod store;
pub mod subjects;
