//! What the daemon says of itself: logs, and the redaction that keeps secrets out of them.

pub mod log;
pub mod redact;
