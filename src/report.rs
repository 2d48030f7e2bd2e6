//! Views of the manifest, and what goes out of it to people: notifications and the heartbeat.

pub mod heartbeat;
pub mod notify;
pub mod record;
