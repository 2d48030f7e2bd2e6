//! What is counted of a destination: each operation by what came of it.

use super::Store;
use super::StoreError;
use super::StoreErrorKind;
use crate::telemetry::metrics::Metrics;

impl Store {
    /// Counts what is asked of this destination from now on into `metrics`; the first word counts.
    pub fn report_to(&self, metrics: &Metrics) {
        self.0.metrics.get_or_init(|| metrics.clone());
    }

    pub(super) fn count<T>(
        &self,
        operation: &'static str,
        done: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if let Some(metrics) = self.0.metrics.get() {
            let outcome = done.as_ref().err().map_or("ok", word);
            metrics.destination_request(&self.0.name, operation, outcome);
        }
        done
    }
}

fn word(error: &StoreError) -> &'static str {
    match error.kind {
        StoreErrorKind::Transient if error.is_busy() => "busy",
        StoreErrorKind::Transient => "transient",
        StoreErrorKind::Blocked => "blocked",
        StoreErrorKind::Exists => "exists",
        StoreErrorKind::Conflict => "conflict",
        StoreErrorKind::UploadGone => "upload_gone",
        StoreErrorKind::Ambiguous => "ambiguous",
        StoreErrorKind::Rejected => "rejected",
        StoreErrorKind::Source => "source",
    }
}
