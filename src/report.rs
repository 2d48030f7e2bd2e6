//! Read-only views of the manifest.

pub mod api;
pub mod links;
pub mod record;
pub mod status;

mod range;
