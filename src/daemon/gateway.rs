//! The gateway's wiring: which providers' APIs are served again, and what of it outlives a reload.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;

use anyhow::Context as _;
use url::Url;

use crate::config::Config;
use crate::daemon::wiring::Seams;
use crate::daemon::wiring::connect::api_client;
use crate::http::client::Traffic;
use crate::http::guard::Guard;
use crate::intake::gateway;
use crate::intake::gateway::Counts;
use crate::intake::gateway::Deferred;
use crate::intake::gateway::Gateway;
use crate::intake::gateway::GatewayParts;
use crate::intake::gateway::Served;
use crate::manifest::Manifest;
use crate::model::task::ProviderName;
use crate::provider::Provider;
use crate::report::links::Links;
use crate::report::notify::CallbackBody;
use crate::units::Span;
use crate::work::wake::Wake;

/// How long an answer that passes through may take: some APIs answer when the work is done.
const ANSWER_TIMEOUT: Span = Span::from_secs(300);

/// What of the gateway outlives a reload. A clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// How often what happened.
    pub counts: Counts,
    /// The one writer of its file; opened when the first gateway is made.
    deferred: Arc<OnceLock<Deferred>>,
}

/// What a gateway is made of besides the configuration.
pub(super) struct Around<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) providers: &'a BTreeMap<ProviderName, Provider>,
    pub(super) links: Arc<Links>,
    pub(super) kept: &'a Kept,
    pub(super) seams: &'a Seams,
    pub(super) watch: Wake,
}

/// Builds the gateway that `config` describes.
pub(super) fn gateway(config: &Config, around: Around<'_>) -> anyhow::Result<Gateway> {
    let callbacks = Guard::new(config.callback.allow_private);
    let mut served = BTreeMap::new();
    for (name, settings) in config
        .provider
        .iter()
        .filter(|(_, settings)| settings.gateway)
    {
        let Some(provider) = around.providers.get(name) else {
            continue;
        };
        provider.gateway().with_context(|| {
            format!("provider.{name}.gateway: its description has no [gateway]")
        })?;
        let one = Served {
            provider: provider.clone(),
            http: api_client(
                settings,
                config,
                around.seams,
                Traffic::Answers,
                ANSWER_TIMEOUT,
            )?,
            guard: callbacks.clone(),
            callback: match (&config.server.public_url, provider.hook_path()) {
                (Some(public), Some(path)) => {
                    hook(name, public, &path, &Guard::new(settings.allow_private))?
                }
                (_, None) | (None, _) => None,
            },
        };
        served.insert(name.clone(), one);
    }
    let path = deferred_path(config, around.seams);
    let is_wanted = !served.is_empty() || path.as_ref().is_some_and(|path| path.exists());
    Ok(Gateway::new(GatewayParts {
        manifest: around.manifest.clone(),
        providers: served,
        config: config.gateway.clone(),
        links: durable(around.links),
        deferred: path
            .filter(|_| is_wanted)
            .and_then(|path| around.kept.deferred(&path)),
        counts: around.kept.counts.clone(),
        clock: around.seams.clock.clone(),
        watch: around.watch,
    }))
}

/// The links that last of all archived assets of a task.
fn durable(links: Arc<Links>) -> gateway::Links {
    Arc::new(move |task| {
        let links = Arc::clone(&links);
        Box::pin(async move {
            let mut made = BTreeMap::new();
            for asset in &task.assets {
                let link = links.durable(&task.key, asset).await;
                if let Some(link) = link.map_err(|error| error.to_string())? {
                    made.insert(asset.index, link.to_string());
                }
            }
            Ok(made)
        })
    })
}

/// What makes the bodies of callbacks in the words of the task's provider.
pub(super) fn callback_body(gateway: &Gateway) -> CallbackBody {
    let gateway = gateway.clone();
    Arc::new(move |_, task| {
        let gateway = gateway.clone();
        Box::pin(async move { gateway.told(task).await })
    })
}

/// Where the provider is asked to call us: where others reach us and its webhooks are taken. Nowhere, if that is an
/// address that it cannot call: it would refuse the submission for that.
fn hook(
    name: &ProviderName,
    public: &Url,
    path: &str,
    callable: &Guard,
) -> anyhow::Result<Option<Url>> {
    let url = format!("{}{path}", public.as_str().trim_end_matches('/'));
    let url = Url::parse(&url).context("server.public_url")?;
    match callable.check(&url) {
        Ok(()) => Ok(Some(url)),
        Err(why) => {
            tracing::warn!(provider = %name, %why, "server.public_url is no address that the provider can call: what passes the gateway is polled for");
            Ok(None)
        }
    }
}

impl Kept {
    /// The file for what passes while the manifest cannot be written. Without one the gateway works all the same.
    fn deferred(&self, path: &Path) -> Option<Deferred> {
        if let Some(deferred) = self.deferred.get() {
            return Some(deferred.clone());
        }
        match Deferred::open(path) {
            Ok(deferred) => Some(self.deferred.get_or_init(|| deferred).clone()),
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "nothing can take tasks while the manifest cannot be written");
                None
            }
        }
    }
}

/// Beside the manifest, under its name. One that is on a server has none beside it: then in the service's own folder.
fn deferred_path(config: &Config, seams: &Seams) -> Option<PathBuf> {
    if config.manifest.is_shared() {
        let folder = (seams.env)("STATE_DIRECTORY")?;
        return Some(PathBuf::from(folder).join("manifest.deferred"));
    }
    let mut path = Manifest::path(&config.manifest)?.into_os_string();
    path.push(".deferred");
    Some(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_provider_can_call_is_handed_to_it() {
        let check = |public: &str, allow_private, expected: Option<&str>| {
            let name = "raw".parse().unwrap();
            let guard = Guard::new(allow_private);
            let url = hook(&name, &public.parse().unwrap(), "/hooks/raw/x", &guard);
            let url = url.unwrap().map(String::from);
            assert_eq!(url.as_deref(), expected, "{public}");
        };
        let open = "https://archive.example.com/in/";
        check(
            open,
            false,
            Some("https://archive.example.com/in/hooks/raw/x"),
        );
        check("http://archive.example.com", false, None);
        check("https://archive.lan", false, None);
        check("https://10.0.0.1", false, None);
        check(
            "http://10.0.0.1:1",
            true,
            Some("http://10.0.0.1:1/hooks/raw/x"),
        );
    }
}
