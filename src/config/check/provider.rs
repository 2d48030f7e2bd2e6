//! What is wrong with providers: how they are described, where their key is.

use crate::config::check::Check;
use crate::config::node::Path;
use crate::config::problem::At;
use crate::config::problem::nearest;
use crate::model::task::FETCH_PROVIDER;
use crate::provider;
use crate::provider::description::Description;

impl Check<'_> {
    pub(super) fn providers(&mut self) {
        for (name, provider) in &self.config.provider {
            let path = Path::keys(&["provider", name.as_str()]);
            if name.as_str() == FETCH_PROVIDER {
                self.bare_links(&path, provider);
            } else {
                self.description(&path, name.as_str(), provider);
            }
            if provider.gateway && name.as_str() != FETCH_PROVIDER {
                self.gateway(&path, name.as_str(), provider);
            }
            if let Some(source) = &provider.api_key {
                self.secret(path.key("api_key"), source);
            }
            let hook_secrets = [
                ("hook_secret", &provider.hook_secret),
                ("hook_secret_old", &provider.hook_secret_old),
                ("hook_key", &provider.hook_key),
                ("hook_key_old", &provider.hook_key_old),
            ];
            for (key, source) in hook_secrets {
                if let Some(source) = source {
                    self.secret(path.key(key), source);
                }
            }
            if provider.webhook && provider.hook_secret.is_none() {
                let what = "true, and there is no hook_secret";
                let note = "hook_secret is the token in the address of its webhooks: 32 random bytes as text";
                self.wrong(At::Value, path.key("webhook"), what, note);
            }
            if let Some(url) = &provider.base_url {
                self.address(path.key("base_url"), url);
                if url.scheme() == "http" && !provider.allow_private {
                    let what = "plain http, which is for private networks only";
                    let note = "write https, or `allow_private = true` for an address inside";
                    self.wrong(At::Value, path.key("base_url"), what, note);
                }
            }
        }
    }

    /// What is said of discovery and comes to nothing.
    pub(super) fn undiscovered(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (name, provider) in &self.config.provider {
            if provider.discover_since.is_some() && !provider.discover {
                warnings.push(format!(
                    "provider.{name}.discover_since is without effect: set provider.{name}.discover = true beside it"
                ));
            }
            let has_list =
                || provider::describe(name, provider).map_or(true, |it| it.list.is_some());
            if provider.discover && !has_list() {
                warnings.push(format!(
                    "provider.{name}.discover is without effect: its description has no [list], so announce its tasks"
                ));
            }
        }
        warnings
    }

    /// The provider of bare links has no API, so most keys mean nothing for it.
    fn bare_links(&mut self, path: &Path, provider: &provider::Config) {
        let given = [
            ("kind", provider.kind.is_some()),
            ("description", provider.description.is_some()),
            ("api_key", provider.api_key.is_some()),
            ("base_url", provider.base_url.is_some()),
            ("requests", provider.requests.is_some()),
            ("output_ttl", provider.output_ttl.is_some()),
            ("gateway", provider.gateway),
            ("webhook", provider.webhook),
            ("discover", provider.discover),
            ("discover_since", provider.discover_since.is_some()),
        ];
        for (key, _) in given.iter().filter(|(_, is_given)| *is_given) {
            let what = format!("`{FETCH_PROVIDER}` stands for bare links, which have no API");
            let note = "only `allow_private` and `headers` have a meaning here";
            self.wrong(At::Key, path.key(key), what, note);
        }
    }

    /// What is built in says whether its API can be served again; a file is read when the daemon starts.
    fn gateway(&mut self, path: &Path, name: &str, provider: &provider::Config) {
        if provider.description.is_some() {
            return;
        }
        let kind = provider.kind.as_deref().unwrap_or(name);
        let lacks_it = |description: Description| description.gateway.is_none();
        if Description::built_in(kind).is_some_and(lacks_it) {
            let what = format!("the built-in description of {kind:?} has no [gateway]");
            let note = "leave it out, or write a description of your own with a [gateway] in it";
            self.wrong(At::Value, path.key("gateway"), what, note);
        }
    }

    /// A provider is described by its kind or by a file; without both its name is the kind.
    fn description(&mut self, path: &Path, name: &str, provider: &provider::Config) {
        let known: Vec<&str> = Description::kinds().collect();
        let is_known = |kind: &str| Description::built_in(kind).is_some();
        match (&provider.kind, &provider.description) {
            (Some(_), Some(_)) => {
                let note = "keep `kind` for a built-in description, or `description` for your own";
                self.wrong(
                    At::Key,
                    path.key("description"),
                    "given beside `kind`",
                    note,
                );
            }
            (Some(kind), None) if !is_known(kind) => {
                let what = format!("{kind:?} is not built in");
                let note = nearest(kind, known.iter().copied()).map_or_else(
                    || {
                        format!(
                            "built in: {}; any other API needs a `description`",
                            known.join(", ")
                        )
                    },
                    |meant| format!("did you mean {meant:?}?"),
                );
                self.wrong(At::Value, path.key("kind"), what, note);
            }
            (None, None) if !is_known(name) => {
                let what =
                    format!("neither `kind` nor `description`, and {name:?} is not built in");
                let note = format!(
                    "write kind = one of {known:?}, or description = the path of a file that describes the API"
                );
                self.wrong(At::Table, path.clone(), what, note);
            }
            (Some(_), None) | (None, Some(_) | None) => {}
        }
    }
}
