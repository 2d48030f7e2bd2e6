//! What is wrong with those who are told: endpoints without a wish, two of one name, addresses that are none.

use std::collections::BTreeSet;

use url::Url;

use crate::config::check::Check;
use crate::config::check::at_least;
use crate::config::check::route::written;
use crate::config::node::Path;
use crate::config::problem::At;
use crate::model::event::EventKind;
use crate::report::notify;
use crate::units::Span;

/// More often nobody looks.
const HEARTBEAT_MIN: Span = Span::from_secs(1);

impl Check<'_> {
    pub(super) fn notify(&mut self) {
        let mut names = BTreeSet::new();
        let endpoints = written(self.tree, self.failed, "notify").zip(&self.config.notify);
        for (path, config) in endpoints {
            let name = config.endpoint();
            if name.is_callback() {
                let what = "not a name";
                let note = "write small letters, digits and underlines, a letter first";
                self.wrong(At::Value, path.key("name"), what, note);
            } else if !names.insert(name.clone()) {
                let what = format!("another endpoint is called {:?} too", name.as_str());
                let note = "give each a `name` of its own";
                let at = if config.name.is_some() { "name" } else { "url" };
                self.wrong(At::Value, path.key(at), what, note);
            }
            self.endpoint(&path, config);
        }
        let callback = &self.config.callback;
        let path = Path::keys(&["callback"]);
        self.keys_that_sign(
            &path,
            callback.secret.as_ref(),
            callback.secret_old.as_ref(),
        );
        let heartbeat = &self.config.heartbeat;
        if let Some(url) = &heartbeat.url {
            let path = Path::keys(&["heartbeat", "url"]);
            self.reachable(path, url, heartbeat.allow_private);
        }
        if heartbeat.every < HEARTBEAT_MIN {
            let what = format!("{} is too short", heartbeat.every);
            self.value(&["heartbeat", "every"], what, at_least(HEARTBEAT_MIN));
        }
    }

    fn endpoint(&mut self, path: &Path, config: &notify::Config) {
        let when = path.key("when");
        if config.when.is_empty() && !self.has_failed(&when) {
            let kinds: Vec<&str> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
            let note = format!("name at least one of {}", kinds.join(", "));
            self.wrong(At::Value, when, "empty, so it would hear of nothing", note);
        }
        self.reachable(path.key("url"), &config.url, config.allow_private);
        self.keys_that_sign(path, Some(&config.secret), config.secret_old.as_ref());
    }

    fn keys_that_sign(
        &mut self,
        path: &Path,
        secret: Option<&crate::secret::SecretSource>,
        previous: Option<&crate::secret::SecretSource>,
    ) {
        for (key, source) in [("secret", secret), ("secret_old", previous)] {
            if let Some(source) = source {
                self.secret(path.key(key), source);
            }
        }
        if secret.is_none() && previous.is_some() {
            let note = "write the key in force as `secret`";
            let what = "given without `secret`";
            self.wrong(At::Key, path.key("secret_old"), what, note);
        }
    }

    /// An address that we would call by ourselves. Its path and query may be a secret, so it is not shown.
    fn reachable(&mut self, path: Path, url: &Url, allow_private: bool) {
        let is_http = matches!(url.scheme(), "http" | "https") && url.has_host();
        if !is_http {
            let what = "neither an http nor an https address";
            let note = "write one such as \"https://app.example.com/hooks/archive\"";
            self.wrong(At::Value, path, what, note);
        } else if url.scheme() == "http" && !allow_private {
            let what = "plain http, which anybody on the way can read";
            let note = "write https, or `allow_private = true` for an address inside";
            self.wrong(At::Value, path, what, note);
        }
    }
}
