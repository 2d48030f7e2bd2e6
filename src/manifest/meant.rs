//! The one task that is meant: by its ID, and by its provider where several have it.

use super::Manifest;
use super::ManifestError;
use super::row::TaskFilter;
use super::row::TaskRecord;
use crate::model::task::ProviderName;
use crate::model::task::TaskId;

/// Why no one task is meant.
#[derive(Debug, thiserror::Error)]
pub enum NotOne {
    /// There is none.
    #[error("no task {0} in the manifest")]
    Unknown(TaskId),
    /// There are several.
    #[error("{id} is a task of {one} and of {other}")]
    Several {
        /// The ID that they have.
        id: TaskId,
        /// One of their providers.
        one: ProviderName,
        /// Another.
        other: ProviderName,
    },
    /// Nobody knows.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

impl Manifest {
    /// The one task with this ID, and of this provider where one is named.
    pub async fn the_task(
        &self,
        provider: Option<&ProviderName>,
        id: &TaskId,
    ) -> Result<TaskRecord, NotOne> {
        let filter = TaskFilter {
            provider: provider.cloned(),
            id: Some(id.clone()),
            ..TaskFilter::default()
        };
        let mut found = self.tasks(&filter, 2).await?;
        match (found.pop(), found.pop()) {
            (Some(task), None) => Ok(task),
            (Some(other), Some(one)) => Err(NotOne::Several {
                id: id.clone(),
                one: one.key.provider,
                other: other.key.provider,
            }),
            (None, _) => Err(NotOne::Unknown(id.clone())),
        }
    }
}
