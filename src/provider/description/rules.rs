//! What two keys of a description say against each other, which no field can see by itself.

use crate::model::task::Progress;
use crate::provider::description::Description;
use crate::provider::description::field::Auth;
use crate::provider::description::gateway::Gateway;
use crate::provider::description::many::PageBy;
use crate::provider::description::path::PathTemplate;
use crate::provider::description::results::DownloadAuth;
use crate::provider::description::status::TimeUnit;

/// A rule: whether it is broken, the key to mend, and what is wrong.
type Rule = (bool, &'static str, String);

/// The first rule that is broken, as the key to mend and what is wrong.
pub(super) fn broken(description: &Description) -> Option<(&'static str, String)> {
    let all = places(description)
        .into_iter()
        .chain(reading(description))
        .chain(results(description))
        .chain(many(description))
        .chain(of_others(description));
    let mut broken = all.filter(|(is_broken, ..)| *is_broken);
    broken.next().map(|(_, key, what)| (key, what))
}

/// Each path may only have places that something fills.
fn places(description: &Description) -> Vec<Rule> {
    let params: Vec<&str> = description.id.params.iter().map(String::as_str).collect();
    let of_task: Vec<&str> = params.iter().copied().chain(["id"]).collect();
    let status = &description.status.path;
    let mut rules = vec![
        (
            !status.has("id"),
            "status.path",
            format!("{status} has no {{id}}"),
        ),
        (
            params.contains(&"id"),
            "id.params",
            "\"id\" is the name of what stands after the last slash".to_owned(),
        ),
    ];
    if let Some(unused) = params.iter().find(|name| !status.has(name)) {
        let what = format!("{unused:?} has no place in status.path");
        rules.push((true, "id.params", what));
    }
    let mut allow = |key: &'static str, path: Option<&PathTemplate>, names: &[&str]| {
        let unknown = path.and_then(|path| path.places().find(|name| !names.contains(name)));
        if let Some(unknown) = unknown {
            rules.push((true, key, format!("{{{unknown}}} has no place in it")));
        }
    };
    allow("status.path", Some(status), &of_task);
    let results = &description.results;
    allow("results.path", results.path.as_ref(), &of_task);
    if let Some(call) = &results.call {
        let told = call.values.keys().map(String::as_str);
        let names: Vec<&str> = of_task.iter().copied().chain(told).collect();
        allow("results.call.path", Some(&call.path), &names);
    }
    let batch = description.batch.as_ref().map(|batch| &batch.path);
    allow("batch.path", batch, &["ids"]);
    let list = description.list.as_ref().map(|list| &list.path);
    allow("list.path", list, &[]);
    let check = description.check.as_ref().map(|check| &check.path);
    allow("check.path", check, &[]);
    for look in description.gateway.iter().flat_map(|gateway| &gateway.look) {
        allow("gateway.look", Some(look), &["id"]);
    }
    rules
}

fn reading(description: &Description) -> [Rule; 3] {
    let status = &description.status;
    let took = status.times.took.as_ref();
    [
        (
            !status.map.values().any(|p| *p == Progress::Completed),
            "status.map",
            "no status word means \"completed\"".to_owned(),
        ),
        (
            status
                .gone
                .iter()
                .any(|word| status.map.contains_key(word.as_str())),
            "status.gone",
            "a word of it is in status.map as well".to_owned(),
        ),
        (
            took.is_some_and(|took| took.unit == TimeUnit::Rfc3339),
            "status.times.took",
            "a length of time is written in \"s\" or \"ms\", not as \"rfc3339\"".to_owned(),
        ),
    ]
}

fn results(description: &Description) -> [Rule; 4] {
    let results = &description.results;
    let sends_key = results.download_auth == DownloadAuth::Same;
    let in_header = match description.auth {
        Auth::Bearer | Auth::Header { .. } => true,
        Auth::Query { .. } | Auth::Jwt | Auth::None => false,
    };
    [
        (
            results.pointers.is_empty() && results.path.is_none(),
            "results.pointers",
            "it is empty, so no result would ever be found".to_owned(),
        ),
        (
            results.path.is_some() && !sends_key && !matches!(description.auth, Auth::None),
            "results.path",
            "a path of the API needs the key: write download_auth = \"same\"".to_owned(),
        ),
        (
            sends_key && results.hosts.is_empty(),
            "results.hosts",
            "it is empty, so download_auth = \"same\" would send the key to any host".to_owned(),
        ),
        (
            sends_key && !in_header,
            "results.download_auth",
            "\"same\" needs a key that travels in a header as it is".to_owned(),
        ),
    ]
}

/// What others say names a task in the API's own word for it, and the gateway knows no call but that for one task.
fn of_others(description: &Description) -> [Rule; 7] {
    let results = &description.results;
    let gateway = description.gateway.as_ref();
    let webhook = description.webhook.as_ref();
    let tells_no_id = |gateway: &Gateway| gateway.id.is_none() && description.status.id.is_none();
    [
        (
            gateway.is_some_and(|gateway| !gateway.has_submissions()),
            "gateway.submit",
            "it has no path, so no task would ever be learned".to_owned(),
        ),
        (
            gateway.is_some_and(|gateway| gateway.look.iter().any(|look| !look.has("id"))),
            "gateway.look",
            "a path of it has no {id}".to_owned(),
        ),
        (
            gateway.is_some_and(tells_no_id),
            "gateway.id",
            "the ID of a new task cannot be read out of an answer without it or status.id"
                .to_owned(),
        ),
        (
            gateway.is_some() && (results.call.is_some() || results.path.is_some()),
            "gateway",
            "it does not go with results.call or results.path: the links are in no answer about a task"
                .to_owned(),
        ),
        (
            gateway.is_some() && !description.id.is_one_word(),
            "gateway",
            "it does not go with task IDs of several words: its callers use the API's own".to_owned(),
        ),
        (
            webhook.is_some_and(|webhook| webhook.id.iter().next().is_none()),
            "webhook.id",
            "it is empty, so no callback would be about a task".to_owned(),
        ),
        (
            webhook.is_some() && !description.id.params.is_empty(),
            "webhook",
            "it does not go with id.params: a callback does not tell them".to_owned(),
        ),
    ]
}

fn many(description: &Description) -> Vec<Rule> {
    let has_id = description.status.id.is_some();
    let has_params = !description.id.params.is_empty();
    let mut rules = Vec::new();
    if let Some(batch) = &description.batch {
        rules.extend([
            (
                !has_id,
                "status.id",
                "a batch cannot be told apart without it".to_owned(),
            ),
            (
                batch.path.has("ids") == batch.ids.is_some(),
                "batch.ids",
                "either the path has {ids} and is a GET, or `ids` names the list in the body of a POST"
                    .to_owned(),
            ),
            (
                description.results.call.is_some() || has_params,
                "batch",
                "it does not go with results.call or id.params".to_owned(),
            ),
        ]);
    }
    if let Some(list) = &description.list {
        let page = &list.page;
        rules.extend([
            (
                list.id.is_none() && !has_id,
                "list.id",
                "the ID of a task cannot be read out of a row without it or status.id".to_owned(),
            ),
            (
                has_params,
                "list",
                "it does not go with id.params: a row does not tell them".to_owned(),
            ),
            (
                page.by == PageBy::Address && page.next.is_none(),
                "list.page.next",
                "it is missing: where the address of the next page is".to_owned(),
            ),
            (
                page.by != PageBy::Address && page.name.is_empty(),
                "list.page.name",
                "it is missing: the parameter of the query".to_owned(),
            ),
        ]);
    }
    rules
}
