//! How often something may happen: a [`Rate`], and a [`Ledger`] that counts by it for any number of keys.
//!
//! Time is a parameter: what has passed since a moment that is the same for all calls. Nothing here knows what the keys
//! stand for, who asks, or where else somebody may count.

mod ledger;
mod rate;

pub use ledger::{Ledger, Standing};
pub use rate::Rate;
