//! What no single value can be wrong about: names that must exist, limits that depend on each other, templates.

use std::collections::BTreeSet;
use std::fmt::Display;

use crate::archive::WINDOW;
use crate::config::Config;
use crate::config::Problem;
use crate::config::Reader;
use crate::config::locate::Part;
use crate::config::node::Route;
use crate::config::problem::suggest;
use crate::model::key::KeyTemplate;
use crate::model::object::DestinationName;
use crate::model::task::FETCH_PROVIDER;
use crate::model::task::ProviderName;
use crate::provider::description::Description;
use crate::secret::SecretSource;
use crate::store::Credentials;
use crate::units::ByteSize;
use crate::units::Span;
use crate::watch::route::Routes;

/// S3's limits on a part.
const PART_SIZES: std::ops::RangeInclusive<ByteSize> = ByteSize::mib(5)..=ByteSize::mib(5 * 1024);

/// A shorter lease runs out while a busy disk takes its time.
const LEASE_MIN: Span = Span::from_secs(10);

/// A shorter stall time-out mistakes every hiccup for a stall.
const STALL_MIN: Span = Span::from_secs(1);

/// The problems, and what works but most likely is not meant.
pub(super) fn check(config: &Config, reader: &Reader<'_>) -> (Vec<Problem>, Vec<String>) {
    let mut check = Check {
        reader,
        problems: Vec::new(),
    };
    check.transfer(config);
    check.times(config);
    config
        .provider
        .iter()
        .for_each(|(name, it)| check.provider(name, it));
    config
        .destination
        .iter()
        .for_each(|(name, it)| check.destination(name, it));
    check.routes(config);
    check.templates(config);
    let mut warnings = Vec::new();
    if config.destination.is_empty() {
        check.fail(
            &Route::of(&["destination"]),
            "there is none: nothing can be archived",
            Some("`reelvault init` writes an example"),
        );
    }
    if config
        .provider
        .keys()
        .all(|name| name.as_str() == FETCH_PROVIDER)
    {
        warnings.push("no provider is configured: only `reelvault fetch` finds work".to_owned());
    }
    (check.problems, warnings)
}

struct Check<'a> {
    reader: &'a Reader<'a>,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn fail(&mut self, route: &Route, what: impl Display, hint: Option<&str>) {
        let problem = self.reader.problem(route, Part::Value, what);
        self.problems.push(problem.hint(hint.map(str::to_owned)));
    }

    fn transfer(&mut self, config: &Config) {
        let transfer = &config.transfer;
        let at = |key: &str| Route::of(&["transfer", key]);
        if transfer.concurrent == 0 {
            self.fail(&at("concurrent"), "is 0: nothing would ever move", None);
        }
        if transfer.parts_ahead == 0 {
            self.fail(&at("parts_ahead"), "is 0: nothing would ever move", None);
        }
        if !PART_SIZES.contains(&transfer.part_size) {
            let what = format!("is {}, S3 takes 5 MiB to 5 GiB", transfer.part_size);
            self.fail(&at("part_size"), what, None);
        }
        if transfer
            .parts_budget()
            .is_none_or(|budget| budget < transfer.part_size)
        {
            let windows = WINDOW.as_u64().saturating_mul(transfer.concurrent.into());
            let least = ByteSize::bytes(windows.saturating_add(transfer.part_size.as_u64()));
            let what = format!(
                "is {}, at least {least} is wanted: {WINDOW} for each of {} transfers, and one part",
                transfer.memory, transfer.concurrent
            );
            self.fail(&at("memory"), what, None);
        }
        if transfer.stall_timeout < STALL_MIN {
            let what = format!(
                "is {}, at least {STALL_MIN} is wanted",
                transfer.stall_timeout
            );
            self.fail(&at("stall_timeout"), what, None);
        }
    }

    fn times(&mut self, config: &Config) {
        if !(0.0..=1.0).contains(&config.poll.jitter) {
            self.fail(
                &Route::of(&["poll", "jitter"]),
                "is not between 0 and 1",
                None,
            );
        }
        if config.poll.first > config.poll.max {
            let what = format!(
                "is {}, longer than poll.max, {}",
                config.poll.first, config.poll.max
            );
            self.fail(&Route::of(&["poll", "first"]), what, None);
        }
        if config.manifest.lease < LEASE_MIN {
            let what = format!(
                "is {}, at least {LEASE_MIN} is wanted",
                config.manifest.lease
            );
            self.fail(&Route::of(&["manifest", "lease"]), what, None);
        }
        if !config.manifest.url.starts_with("sqlite:") {
            let hint = Some("write sqlite:/path/to/manifest.db");
            self.fail(
                &Route::of(&["manifest", "url"]),
                "names no engine that this version has",
                hint,
            );
        }
    }

    fn provider(&mut self, name: &ProviderName, settings: &crate::provider::Config) {
        let at = Route::of(&["provider", name.as_str()]);
        self.secret(&at.key("api_key"), settings.api_key.as_ref());
        let named = [settings.kind.is_some(), settings.description.is_some()];
        match (name.as_str() == FETCH_PROVIDER, named) {
            (true, [false, false]) => {}
            (true, _) => {
                let what = "stands for bare links: it has neither a kind nor a description";
                self.fail(&at, what, Some("give the provider another name"));
            }
            (false, [true, true]) => self.fail(
                &at,
                "has both a kind and a description",
                Some("one of them says what it is"),
            ),
            (false, _) => {
                let kind = settings.kind.as_deref().unwrap_or(name.as_str());
                let is_known =
                    settings.description.is_some() || Description::kinds().any(|it| it == kind);
                if !is_known {
                    let kinds: Vec<&str> = Description::kinds().collect();
                    let hint =
                        format!("kinds are {}; or name a description file", kinds.join(", "));
                    self.fail(
                        &at.key("kind"),
                        format!("{kind:?} is no kind of provider"),
                        Some(&hint),
                    );
                }
            }
        }
    }

    fn destination(&mut self, name: &DestinationName, settings: &crate::store::Config) {
        let at = Route::of(&["destination", name.as_str()]);
        let kinds = [
            settings.s3.is_some(),
            settings.r2.is_some(),
            settings.fs.is_some(),
        ];
        if kinds.iter().filter(|is_there| **is_there).count() != 1 {
            let hint = format!(
                "write [destination.{name}.s3], [destination.{name}.r2] or [destination.{name}.fs]"
            );
            self.fail(&at, "is not of exactly one kind", Some(&hint));
        }
        if let Some(s3) = &settings.s3 {
            let at = at.key("s3");
            self.bucket(&at, &s3.bucket);
            self.secret(&at.key("access_key"), s3.access_key.as_ref());
            self.secret(&at.key("secret_key"), s3.secret_key.as_ref());
            let has_both = s3.access_key.is_some() && s3.secret_key.is_some();
            if s3.access_key.is_some() != s3.secret_key.is_some()
                || (s3.credentials == Credentials::Static && !has_both)
            {
                self.fail(&at, "wants access_key and secret_key together", None);
            }
        }
        if let Some(r2) = &settings.r2 {
            let at = at.key("r2");
            self.bucket(&at, &r2.bucket);
            self.secret(&at.key("access_key"), Some(&r2.access_key));
            self.secret(&at.key("secret_key"), Some(&r2.secret_key));
            if r2.account.len() != 32 || !r2.account.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                let hint = Some(
                    "it stands in the address of the dashboard: dash.cloudflare.com/ACCOUNT/r2",
                );
                self.fail(
                    &at.key("account"),
                    "is not the account's ID, 32 hexadecimal digits",
                    hint,
                );
            }
        }
    }

    fn bucket(&mut self, at: &Route, bucket: &str) {
        let is_letter = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(is_letter) {
            self.fail(
                &at.key("bucket"),
                format!("{bucket:?} is no bucket name"),
                None,
            );
        }
    }

    fn secret(&mut self, at: &Route, source: Option<&SecretSource>) {
        let Some(source) = source else { return };
        let places = [
            source.credential.is_some(),
            source.file.is_some(),
            source.env.is_some(),
        ];
        if places.iter().filter(|is_there| **is_there).count() != 1 {
            let what = "names not exactly one place";
            let hint =
                Some("one of { credential = \"NAME\" }, { file = \"/path\" }, { env = \"NAME\" }");
            self.fail(at, what, hint);
        }
    }

    fn routes(&mut self, config: &Config) {
        let mut names = BTreeSet::new();
        for (index, route) in config.route.iter().enumerate() {
            let at = Route::of(&["route"]).item(index);
            if !route.name.is_empty() && !names.insert(&route.name) {
                self.fail(
                    &at.key("name"),
                    format!("{:?} is the name of another route", route.name),
                    None,
                );
            }
            if route.to.is_empty() {
                self.fail(
                    &at.key("to"),
                    "is empty: what matches would go nowhere",
                    None,
                );
            }
            for (position, name) in route.to.iter().enumerate() {
                let known = config.destination.keys().map(DestinationName::as_str);
                self.known(
                    &at.key("to").item(position),
                    "destination",
                    name.as_str(),
                    known,
                );
            }
            for (position, name) in route.provider.iter().flatten().enumerate() {
                let known = config.provider.keys().map(ProviderName::as_str);
                self.known(
                    &at.key("provider").item(position),
                    "provider",
                    name.as_str(),
                    known,
                );
            }
            if let Err(error) =
                Routes::new(std::slice::from_ref(route), std::iter::empty(), &config.key)
            {
                self.fail(&at.key("model"), error, None);
            }
        }
    }

    fn known<'k>(
        &mut self,
        at: &Route,
        kind: &str,
        name: &str,
        known: impl Iterator<Item = &'k str>,
    ) {
        let known: Vec<&str> = known.collect();
        if known.contains(&name) {
            return;
        }
        let hint = match suggest(name, known.iter().copied()) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => format!("configured are: {}", known.join(", ")),
        };
        self.fail(at, format!("there is no {kind} {name:?}"), Some(&hint));
    }

    /// With several providers every key that may be used must tell them apart.
    fn templates(&mut self, config: &Config) {
        let providers = config
            .provider
            .keys()
            .filter(|name| name.as_str() != FETCH_PROVIDER)
            .count();
        if providers < 2 {
            return;
        }
        let hint = Some("put {provider}/ before it");
        let what = "lacks {provider}: tasks of two providers could share a key";
        if !has_provider(&config.key) {
            self.fail(&Route::of(&["key"]), what, hint);
        }
        for (index, route) in config.route.iter().enumerate() {
            let is_for_one = route
                .provider
                .as_ref()
                .is_some_and(|providers| providers.len() == 1);
            if !is_for_one && route.key.as_ref().is_some_and(|key| !has_provider(key)) {
                self.fail(&Route::of(&["route"]).item(index).key("key"), what, hint);
            }
        }
    }
}

fn has_provider(template: &KeyTemplate) -> bool {
    template.as_str().contains("{provider}")
}
