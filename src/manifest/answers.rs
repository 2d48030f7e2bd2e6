//! The verb of the gateway: what it answers from.

use super::Manifest;
use super::ManifestError;
use super::engine::look;
use crate::manifest::row::answer::ServedTask;
use crate::model::task::TaskKey;

impl Manifest {
    /// A task, with the provider's last answer about it where that was kept.
    pub async fn served_task(&self, key: &TaskKey) -> Result<Option<ServedTask>, ManifestError> {
        let key = key.clone();
        look!(self, "served_task", answers::served_task(&key))
    }
}
