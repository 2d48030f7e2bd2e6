//! The list of an account's tasks, page by page, in whichever way the API pages.

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::model::task::TaskId;
use crate::provider::Provider;
use crate::provider::answer::text;
use crate::provider::api::is_no_such_call;
use crate::provider::description::many::List;
use crate::provider::description::many::PageBy;
use crate::provider::description::path::escape_word;
use crate::provider::error::ProviderError;

/// A cursor or an address longer than this is none.
const PLACE_BYTES_MAX: usize = 4096;

/// One page of the account's tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The tasks on it: the ID, and when it was made where the row says so.
    pub tasks: Vec<(TaskId, Option<Timestamp>)>,
    /// Rows that name no task.
    pub unread: usize,
    /// Where the next page is; `None` at the end of the list.
    pub next: Option<Place>,
}

/// Where a page is, in the words of its API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(pub String);

/// Why there is no page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// The API has no list, or none for this account.
    #[error("the API has no list of tasks")]
    NoList,
    /// What any call may meet.
    #[error(transparent)]
    Provider(#[from] ProviderError),
}

impl Provider {
    /// Whether the description has a list at all.
    pub fn has_list(&self) -> bool {
        self.description().list.is_some()
    }

    /// Whether pages move while they are read, so that a row may slip from a page not yet read to one that was.
    pub fn pages_drift(&self) -> bool {
        let list = self.description().list.as_ref();
        list.is_some_and(|list| match list.page.by {
            PageBy::Number | PageBy::Offset => true,
            PageBy::Cursor | PageBy::Address => false,
        })
    }

    /// Reads the page at `place`, or the first one, which has the newest tasks.
    pub async fn list(&self, place: Option<&Place>) -> Result<Page, ListError> {
        let Some(list) = &self.description().list else {
            return Err(ListError::NoList);
        };
        let caller = &self.0.caller;
        let path = page_path(list, place);
        let answer = caller.call(Method::GET, &path, Bytes::new()).await?;
        if is_no_such_call(answer.status) {
            match place {
                None => return Err(ListError::NoList),
                // Some say of a page behind the last one that it is not there.
                Some(_) if self.pages_drift() => {
                    return Ok(Page {
                        tasks: Vec::new(),
                        unread: 0,
                        next: None,
                    });
                }
                // A page that the one before it named: that is no end.
                Some(_) => {}
            }
        }
        let value = caller.good(&answer)?;
        let reader = caller.reader();
        let mut tasks = Vec::new();
        let (mut rows, mut last) = (0, None);
        let all = list.tasks.each(&value, |row| {
            rows += 1;
            last = list_id(list, self, row);
            tasks.extend(reader.row(row));
        });
        all.map_err(|error| caller.garbled(Some(answer.status), error.to_string()))?;
        let next = (rows > 0).then(|| self.next(list, place, &value, rows, last));
        Ok(Page {
            unread: rows - tasks.len(),
            tasks,
            next: next.flatten().filter(|next| Some(next) != place),
        })
    }

    fn next(
        &self,
        list: &List,
        place: Option<&Place>,
        answer: &Value,
        rows: usize,
        last: Option<String>,
    ) -> Option<Place> {
        let number = |first: usize| {
            let told = place.and_then(|place| place.0.parse().ok());
            told.unwrap_or(first)
        };
        let told = list.page.next.as_ref().map(|next| text(next, answer));
        let next = match list.page.by {
            PageBy::Number => number(1).checked_add(1)?.to_string(),
            PageBy::Offset => number(0).checked_add(rows)?.to_string(),
            PageBy::Cursor => told.unwrap_or(last)?,
            PageBy::Address => self.own_path(&told??)?,
        };
        let is_sound = !next.is_empty() && next.len() <= PLACE_BYTES_MAX;
        is_sound.then_some(Place(next))
    }
}

impl Provider {
    /// The path of the next page. None is followed to other addresses than the API's own: the key goes along.
    fn own_path(&self, address: &str) -> Option<String> {
        let path = self.0.caller.account.path_of(address);
        if path.is_none() && !address.is_empty() {
            let base_url = self.0.caller.account.base_url();
            self.0.leads_away.call_once(|| {
                tracing::warn!(provider = %self.name(), "the list's next page is not below {base_url}: it is not read");
            });
        }
        path
    }
}

fn list_id(list: &List, provider: &Provider, row: &Value) -> Option<String> {
    let pointer = list.id.as_ref();
    text(pointer.or(provider.description().status.id.as_ref())?, row)
}

fn page_path(list: &List, place: Option<&Place>) -> String {
    if let (PageBy::Address, Some(place)) = (list.page.by, place) {
        return place.0.clone();
    }
    let path = list.path.as_str();
    let joint = if path.contains('?') { '&' } else { '?' };
    let mut path = format!("{path}{joint}{}={}", list.size.name, list.size.max);
    let first = match list.page.by {
        PageBy::Number => Some("1"),
        PageBy::Offset => Some("0"),
        PageBy::Cursor | PageBy::Address => None,
    };
    let value = place.map(|place| place.0.as_str()).or(first);
    if let Some(value) = value.and_then(escape_word) {
        path.extend(["&", &list.page.name, "=", &value]);
    }
    path
}
