//! What the daemon says of itself: logs, the redaction that keeps secrets out of them, and metrics.

pub mod log;
pub mod metrics;
pub mod redact;
