//! Views of the manifest, and what goes out of it to people: notifications and the heartbeat.

pub mod api;
pub mod heartbeat;
pub mod links;
pub mod notify;
pub mod record;
pub mod status;

mod range;
