//! The world as its users see it: changes in, answers and touched keys out.

#[path = "world/incremental.rs"]
mod incremental;
#[path = "world/intents.rs"]
mod intents;
#[path = "world/picture.rs"]
mod picture;
#[path = "world/policies.rs"]
mod policies;
#[path = "world/support.rs"]
mod support;
