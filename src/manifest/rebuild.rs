//! The verb of a rebuild: what a destination holds is written down anew.

use super::Manifest;
use super::ManifestError;
use super::engine::change;
use crate::manifest::row::rebuild::FoundObject;
use crate::manifest::row::rebuild::Rebuilt;

/// People: a manifest that was lost.
impl Manifest {
    /// Writes down archived objects that are not known, with their tasks and assets, in the order given. No row that is
    /// there is changed, and nobody is told: all of it happened before.
    pub async fn rebuild(&self, found: Vec<FoundObject>) -> Result<Vec<Rebuilt>, ManifestError> {
        change!(self, "rebuild", rebuild::rebuild(&found))
    }
}
