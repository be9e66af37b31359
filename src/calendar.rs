//! When a limit starts anew: its [`window`], which may follow the clocks of a [`zone`].

pub(crate) mod civil;
pub mod window;
pub mod zone;
