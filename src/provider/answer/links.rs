//! The links of results in an answer: which places, which addresses, and what they lead to.

use serde_json::Value;
use url::Url;

use crate::model::asset::AssetRole;
use crate::model::task::ResultLink;
use crate::model::task::UNFETCHABLE;
use crate::model::task::is_fetchable;
use crate::provider::answer::Amiss;
use crate::provider::answer::Reader;
use crate::provider::description::identity::Names;
use crate::provider::pointer::Pointer;
use crate::provider::scrub::MESSAGE_CHARS;
use crate::provider::scrub::WORD_CHARS;
use crate::provider::scrub::scrub;
use crate::provider::signature;

/// More results than this are no results: the most that a provider makes for one task is about ten.
const RESULTS_MAX: usize = 256;

/// A link longer than this is none; the longest signed ones have about 4 KiB.
const LINK_BYTES_MAX: usize = 16 * 1024;

/// How much is kept of a result that cannot be fetched: enough to see what it is, and not the picture in a `data:`.
const UNFETCHABLE_CHARS: usize = 40;

/// The extensions by which a link tells what it is.
const EXTENSIONS: [(AssetRole, &[&str]); 3] = [
    (
        AssetRole::Video,
        &["mp4", "mov", "webm", "mkv", "m4v", "avi"],
    ),
    (
        AssetRole::Image,
        &["png", "jpg", "jpeg", "webp", "gif", "avif"],
    ),
    (
        AssetRole::Audio,
        &["mp3", "wav", "m4a", "aac", "flac", "ogg", "opus"],
    ),
];

/// A link, and the pointer that found it; none where the description makes it.
pub(in crate::provider) type FoundLink<'r> = (ResultLink, Option<&'r Pointer>);

impl<'r> Reader<'r> {
    /// The links of a completed task, unless a further call tells them.
    pub(super) fn told_results(
        &self,
        task: &Value,
        names: &Names<'_, '_>,
        kind: Option<&str>,
    ) -> Result<Vec<ResultLink>, Amiss> {
        let results = &self.description.results;
        if results.call.is_some() {
            return Ok(Vec::new());
        }
        let mut links: Vec<ResultLink> = self
            .links(task, kind)?
            .into_iter()
            .map(|(it, _)| it)
            .collect();
        links.extend(self.own_link(names, kind)?);
        Ok(links)
    }

    /// Whether `answer`, about a completed task, has something in place of `results` that is no file.
    pub(in crate::provider) fn has_no_files(&self, answer: &Value, results: &[ResultLink]) -> bool {
        let mut pointers = self.description.results.pointers.iter();
        results.is_empty() && pointers.any(|pointer| pointer.has_no_links(answer))
    }

    /// The link to the API itself, where the description has one.
    pub(in crate::provider) fn own_link(
        &self,
        names: &Names<'_, '_>,
        kind: Option<&str>,
    ) -> Result<Option<ResultLink>, Amiss> {
        let Some(path) = &self.description.results.path else {
            return Ok(None);
        };
        let path = path.fill(|name| names.at(name));
        let path = path.map_err(|place| Amiss::Senseless(format!("{{{place}}} is not known")))?;
        let url = Url::parse(&format!("{}{path}", self.base_url));
        let url = url.map_err(|_| Amiss::Senseless(format!("{path:?} makes no address")))?;
        Ok(Some(ResultLink {
            role: role(&url, kind),
            expires: None,
            url,
        }))
    }

    /// The address that `text`, which stands at the place of a result, means. What looks like one but cannot be fetched
    /// is [`UNFETCHABLE`], since a result that is dropped without a word would be lost.
    pub(in crate::provider) fn link(&self, text: &str) -> Option<Url> {
        let text = text.trim();
        let url = if text.starts_with('/') {
            // As in any document: an address without a host belongs to the one that the answer came from.
            Url::parse(self.base_url).and_then(|base| base.join(text))
        } else {
            Url::parse(text)
        };
        let is_short = text.len() <= LINK_BYTES_MAX;
        if let Some(url) = url.ok().filter(|url| is_short && is_fetchable(url)) {
            return Some(url);
        }
        let is_address = text.starts_with('/')
            || text.starts_with("data:")
            || text.contains("://")
            || role_by_name(text).is_some();
        let told = text.split(['?', '#']).next().unwrap_or_default();
        let told = scrub(told, MESSAGE_CHARS, self.key);
        // Behind a slash, a path would follow and not what was told.
        let told = told.trim_start_matches('/').chars();
        let told: String = told.take(UNFETCHABLE_CHARS).collect();
        let url = is_address.then(|| Url::parse(&format!("{UNFETCHABLE}:{told}")));
        url?.ok()
    }

    /// The links that stand in `answer`, each once.
    pub(in crate::provider) fn links(
        &self,
        answer: &Value,
        kind: Option<&str>,
    ) -> Result<Vec<FoundLink<'r>>, Amiss> {
        let results = &self.description.results;
        let mut found: Vec<FoundLink<'r>> = Vec::new();
        let mut elsewhere = None;
        for pointer in &results.pointers {
            let mut see = |value: &Value| {
                let Some(url) = value.as_str().and_then(|text| self.link(text)) else {
                    return;
                };
                let host = url.host_str().unwrap_or(url.path());
                if !results.hosts.is_empty() && !results.hosts.iter().any(|p| p.matches(host)) {
                    elsewhere = Some(host.to_owned());
                } else if found.iter().all(|(known, _)| known.url != url)
                    && found.len() <= RESULTS_MAX
                {
                    let link = ResultLink {
                        role: role(&url, kind),
                        expires: signature::expiry(&url, self.now),
                        url,
                    };
                    found.push((link, Some(pointer)));
                }
            };
            let all = pointer.each(answer, &mut see);
            all.map_err(|error| Amiss::Senseless(error.to_string()))?;
        }
        match elsewhere {
            _ if found.len() > RESULTS_MAX => {
                Err(Amiss::Senseless(format!("more than {RESULTS_MAX} results")))
            }
            // Some left out is what the list is for; all left out would be a loss that nobody sees.
            Some(host) if found.is_empty() => {
                let host = scrub(&host, WORD_CHARS, self.key);
                Err(Amiss::Senseless(format!(
                    "every result is on a host that results.hosts leaves out, such as {host}"
                )))
            }
            Some(_) | None => Ok(found),
        }
    }
}

fn role(url: &Url, kind: Option<&str>) -> AssetRole {
    match (role_by_name(url.path()), kind) {
        (Some(role), _) => role,
        (None, Some("video")) => AssetRole::Video,
        (None, Some("image")) => AssetRole::Image,
        (None, Some("audio")) => AssetRole::Audio,
        (None, Some(_) | None) => AssetRole::File,
    }
}

fn role_by_name(path: &str) -> Option<AssetRole> {
    let name = path.rsplit('/').next().unwrap_or_default();
    let (_, extension) = name.rsplit_once('.')?;
    let is_it = |known: &&str| known.eq_ignore_ascii_case(extension);
    let mut rows = EXTENSIONS.iter();
    let row = rows.find(|(_, known)| known.iter().any(&is_it));
    row.map(|(role, _)| *role)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::clock::Timestamp;
    use crate::model::task::Sighting;
    use crate::provider::answer::tests::NOW;
    use crate::provider::answer::tests::OWN;
    use crate::provider::answer::tests::check;
    use crate::provider::answer::tests::read;
    use crate::provider::description::Description;
    use crate::secret::Secret;

    #[test]
    fn results_are_taken_once_from_hosts_that_are_allowed() {
        let urls = |sighting: Sighting| {
            let urls = sighting.results.iter().map(|link| link.url.to_string());
            urls.collect::<Vec<_>>()
        };
        let (a, b) = ("https://cdn.example.com/a.mp4", "https://cdn.example.com/b");
        let elsewhere = "https://input.example.net/echo.mp4";
        check(
            &json!({"state": "done", "video": a, "extra": [a, {"x": b, "in": elsewhere}]}),
            urls,
            vec![a.to_owned(), b.to_owned()],
        );
        check(&json!({"state": "busy", "video": a}), urls, vec![]);
        check(&json!({"state": "failed", "video": a}), urls, vec![]);
        let error = read(&json!({"state": "done", "extra": [elsewhere]})).unwrap_err();
        assert_eq!(
            error,
            Amiss::Senseless(
                "every result is on a host that results.hosts leaves out, such as input.example.net"
                    .to_owned()
            )
        );
    }

    #[test]
    fn a_flood_of_results_is_refused() {
        let flood = |count: usize| {
            let urls: Vec<_> = (0..count)
                .map(|i| format!("https://a.example.com/{i}"))
                .collect();
            read(&json!({"state": "done", "extra": urls}))
        };
        assert_eq!(flood(RESULTS_MAX).unwrap().results.len(), RESULTS_MAX);
        assert!(flood(RESULTS_MAX + 1).is_err());
        assert!(flood(5000).is_err());
    }

    #[test]
    fn a_result_that_cannot_be_fetched_is_still_a_result() {
        let description = Description::parse(OWN).unwrap();
        let reader = Reader {
            description: &description,
            base_url: "https://api.example.com/v1",
            key: Some(&Secret::new("canary-key")),
            now: Timestamp::from_unix_seconds(NOW),
        };
        let check = |text: &str, expected: Option<&str>| {
            let url = reader.link(text);
            assert_eq!(url.as_ref().map(Url::as_str), expected, "{text:.60}");
        };
        check(" https://a/b.mp4\n", Some("https://a/b.mp4"));
        check(
            "//cdn.example.com/b.mp4?s=1",
            Some("https://cdn.example.com/b.mp4?s=1"),
        );
        check("/files/b.mp4", Some("https://api.example.com/files/b.mp4"));
        check("ftp://a/b.mp4?s=1", Some("unfetchable:ftp://a/b.mp4"));
        check("file:///etc/passwd", Some("unfetchable:file:///etc/passwd"));
        check(
            "http://[bad/b.mp4?s=1",
            Some("unfetchable:http://[bad/b.mp4"),
        );
        check("//[bad/b.mp4", Some("unfetchable:[bad/b.mp4"));
        check("b.mp4", Some("unfetchable:b.mp4"));
        check(
            "s3://bucket/canary-key",
            Some("unfetchable:s3://bucket/***"),
        );
        let data = format!("data:image/png;base64,{}", "A".repeat(50_000));
        let cut = "unfetchable:data:image/png;base64,AAAAAAAAAAAAAAAAAA";
        check(&data, Some(cut));
        let long = format!("https://a.example.com/{}", "x".repeat(LINK_BYTES_MAX));
        let cut = "unfetchable:https://a.example.com/xxxxxxxxxxxxxxxxxx";
        check(&long, Some(cut));
        for word in [
            "",
            "pending",
            "N/A",
            "no result: filtered",
            "task-1",
            "urn:x",
        ] {
            check(word, None);
        }
    }

    #[test]
    fn a_result_that_is_no_address_has_no_host_that_is_allowed() {
        let error = read(&json!({"state": "done", "video": "data:,x"})).unwrap_err();
        let what = "every result is on a host that results.hosts leaves out, such as data:,x";
        assert_eq!(error, Amiss::Senseless(what.to_owned()));
        check(
            &json!({"state": "done", "video": 7}),
            |sighting| sighting.results.len(),
            0,
        );
    }

    #[test]
    fn the_name_tells_what_a_result_is_before_the_kind_does() {
        let role = |url: &str, kind| role(&Url::parse(url).unwrap(), kind);
        assert_eq!(role("https://a/v.MP4?x=1.png", None), AssetRole::Video);
        assert_eq!(
            role("https://a/last_frame.png", Some("video")),
            AssetRole::Image
        );
        assert_eq!(role("https://a/s.mp3", Some("video")), AssetRole::Audio);
        assert_eq!(
            role("https://a.mp4/content", Some("video")),
            AssetRole::Video
        );
        assert_eq!(role("https://a/content", Some("image")), AssetRole::Image);
        assert_eq!(role("https://a.mp4/x.bin", Some("text")), AssetRole::File);
        assert_eq!(role("https://a/", None), AssetRole::File);
    }
}
