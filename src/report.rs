//! Read-only views of the manifest.

pub mod record;
