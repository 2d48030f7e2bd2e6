//! Read-only views of the manifest.
