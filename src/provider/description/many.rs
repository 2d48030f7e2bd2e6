//! `[batch]` and `[list]` of a description: many tasks in one answer.

use std::num::NonZeroUsize;

use serde::Deserialize;

use crate::provider::description::path::PathTemplate;
use crate::provider::description::status::TimeField;
use crate::provider::pointer::Pointer;

/// `[batch]`: a list of IDs, in the body of a `POST` or in the query of a `GET`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// With `{ids}` it is a `GET` that has them there, with commas between; without, a `POST`.
    pub path: PathTemplate,
    /// The name of the list in the body of a `POST`.
    pub ids: Option<String>,
    /// The tasks in the answer, each as a single look gives it.
    pub tasks: Pointer,
    /// The longest list that is accepted.
    pub max: NonZeroUsize,
}

/// `[list]`: the tasks of the account, newest first, page by page.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// `GET`; may have a query of its own.
    pub path: PathTemplate,
    /// The rows in the answer.
    pub tasks: Pointer,
    /// The task ID in a row; absent = as `status.id`.
    pub id: Option<Pointer>,
    /// When the task was made, in a row; absent = as `status.times.created`.
    pub created: Option<TimeField>,
    /// How many rows a page has.
    pub size: PageSize,
    /// How the next page is asked for.
    pub page: Paging,
}

/// `list.size`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageSize {
    /// The parameter of the query.
    pub name: String,
    /// The most that is accepted.
    pub max: NonZeroUsize,
}

/// `list.page`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paging {
    /// What the parameter counts.
    pub by: PageBy,
    /// The parameter of the query; none where the answer has the next page's whole address.
    #[serde(default)]
    pub name: String,
    /// Where the answer has the cursor, or the address, of the next page; absent = the ID of the last row.
    pub next: Option<Pointer>,
}

/// What a page is asked for by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PageBy {
    /// Its number, from 1 on.
    Number,
    /// The number of rows before it.
    Offset,
    /// A word from the page before.
    Cursor,
    /// An address from the page before.
    Address,
}
