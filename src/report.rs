//! Views of the manifest for programs and people, and what goes out of it: events, notifications and the heartbeat.

pub mod api;
pub mod events;
pub mod heartbeat;
pub mod links;
pub mod notify;
pub mod overview;
pub mod page;
pub mod record;
pub mod status;

mod range;
