//! The guard against inside addresses: which URLs, names and addresses a request may go to.
//!
//! Three lines of defence, since each alone has a hole. The URL is judged before it is sent, where every spelling of
//! an IP literal has been normalised by the parser: a resolver never sees literals. The resolver judges what names
//! stand for, and what it lets through is what is connected to: a second look-up could answer otherwise. And the
//! transport follows no redirect, so each hop comes here again.

mod address;

use std::net::IpAddr;
use std::net::SocketAddr;
use std::task::Context;
use std::task::Poll;

use futures::future::BoxFuture;
use globset::GlobBuilder;
use globset::GlobMatcher;
use hyper_util::client::legacy::connect::dns;
use reqwest::dns::Addrs;
use reqwest::dns::Name;
use reqwest::dns::Resolve;
use reqwest::dns::Resolving;
use url::Host;
use url::Url;

use crate::http::HttpError;
use crate::http::guard::address::judge_address;

/// What may be asked. Without `allow_private`: https to public addresses only.
#[derive(Clone, Debug)]
pub struct Guard {
    allow_private: bool,
    hosts: Vec<GlobMatcher>,
}

/// An allow-list of hosts that is not one.
#[derive(Debug, thiserror::Error)]
#[error("{glob:?} is not a pattern of host names: {source}")]
pub struct GuardError {
    glob: String,
    source: globset::Error,
}

impl Guard {
    /// [`Guard::private`] or [`Guard::public`].
    pub fn new(allow_private: bool) -> Self {
        Self {
            allow_private,
            hosts: Vec::new(),
        }
    }

    /// Public addresses over https, whatever the host.
    pub fn public() -> Self {
        Self::new(false)
    }

    /// Any address, over http too: an intranet, a test.
    pub fn private() -> Self {
        Self::new(true)
    }

    /// The same guard, letting through only hosts that match one of `globs`; an empty list lets through any.
    ///
    /// A `*` matches dots as well: `*.example.com` lets `a.b.example.com` through, and not `example.com`.
    pub fn with_hosts(mut self, globs: &[String]) -> Result<Self, GuardError> {
        let compile = |glob: &String| {
            let built = GlobBuilder::new(glob).case_insensitive(true).build();
            built.map_err(|source| GuardError {
                glob: glob.clone(),
                source,
            })
        };
        let globs: Result<Vec<_>, _> = globs.iter().map(compile).collect();
        self.hosts = globs?.iter().map(globset::Glob::compile_matcher).collect();
        Ok(self)
    }

    /// Whether plain http and inside addresses are let through.
    pub fn allows_private(&self) -> bool {
        self.allow_private
    }

    /// Judges a URL before it is asked; every hop of a redirect is such a URL.
    pub fn check(&self, url: &Url) -> Result<(), HttpError> {
        let host = url.host_str().unwrap_or_default();
        self.judge(url).map_err(|why| forbidden(host, why))
    }

    fn judge(&self, url: &Url) -> Result<(), &'static str> {
        match url.scheme() {
            "https" => {}
            "http" if self.allow_private => {}
            "http" => return Err("only https is"),
            _ => return Err("neither http nor https"),
        }
        let host = url.host().ok_or("a URL without a host")?;
        if !self.allow_private {
            if !url.username().is_empty() || url.password().is_some() {
                return Err("credentials in the URL");
            }
            judge_host(&host)?;
        }
        self.judge_listed(&host)
    }

    fn judge_listed(&self, host: &Host<&str>) -> Result<(), &'static str> {
        if self.hosts.is_empty() {
            return Ok(());
        }
        let plain = match host {
            Host::Domain(name) => name.trim_end_matches('.').to_owned(),
            Host::Ipv4(ip) => ip.to_string(),
            Host::Ipv6(ip) => ip.to_string(),
        };
        if self.hosts.iter().any(|glob| glob.is_match(&plain)) {
            Ok(())
        } else {
            Err("not in the list of hosts")
        }
    }

    /// Drops the forbidden addresses from a resolver's answer; an answer with none left is refused.
    fn filter(&self, name: &str, answer: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, HttpError> {
        if self.allow_private {
            return Ok(answer);
        }
        let mut refused = None;
        let mut kept = answer;
        kept.retain(|address| match judge_address(address.ip()) {
            Ok(()) => true,
            Err(why) => {
                refused = Some(why);
                false
            }
        });
        match refused {
            Some(why) if kept.is_empty() => Err(forbidden(name, why)),
            Some(_) | None => Ok(kept),
        }
    }
}

/// The machine's resolver, its answers filtered by a guard.
#[derive(Clone, Debug)]
pub struct GuardedResolver {
    guard: Guard,
}

impl GuardedResolver {
    /// Filters by `guard`.
    pub fn new(guard: Guard) -> Self {
        Self { guard }
    }
}

type Refusal = Box<dyn std::error::Error + Send + Sync>;

impl GuardedResolver {
    async fn addresses(self, name: &str) -> Result<std::vec::IntoIter<SocketAddr>, Refusal> {
        let answer = tokio::net::lookup_host((name, 0)).await?;
        Ok(self.guard.filter(name, answer.collect())?.into_iter())
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let addresses: Addrs = Box::new(resolver.addresses(name.as_str()).await?);
            Ok(addresses)
        })
    }
}

impl tower_service::Service<dns::Name> for GuardedResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Refusal;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: dns::Name) -> Self::Future {
        let resolver = self.clone();
        Box::pin(async move { resolver.addresses(name.as_str()).await })
    }
}

fn forbidden(host: &str, why: &'static str) -> HttpError {
    HttpError::Forbidden {
        host: host.to_owned(),
        why,
    }
}

fn judge_host(host: &Host<&str>) -> Result<(), &'static str> {
    match host {
        Host::Domain(name) => judge_name(name),
        Host::Ipv4(ip) => judge_address(IpAddr::V4(*ip)),
        Host::Ipv6(ip) => judge_address(IpAddr::V6(*ip)),
    }
}

/// Suffixes that no public name has, or that stand for the machine itself or its cloud's metadata.
const INSIDE_SUFFIXES: [&str; 10] = [
    "localhost",
    "localdomain",
    "local",
    "internal",
    "intranet",
    "lan",
    "home.arpa",
    "metadata.goog",
    "metadata.platformequinix.com",
    "metadata.tencentyun.com",
];

/// Judges a name that the parser has lower-cased and freed of other scripts' digits and dots.
///
/// Names that only *resolve* to an inside address are the resolver's matter.
fn judge_name(name: &str) -> Result<(), &'static str> {
    let name = name.trim_end_matches('.');
    if !name.contains('.') {
        // A resolver may append its search list to these; `localhost` and `metadata` are among them.
        return Err("a name without a dot");
    }
    let within = |suffix: &str| {
        let rest = name.strip_suffix(suffix);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    if INSIDE_SUFFIXES.iter().any(|suffix| within(suffix)) {
        Err("an inside name")
    } else {
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests;
