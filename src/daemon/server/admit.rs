//! Who is let in: by the way that a request came, the host that it names, and the token that it bears.

use std::collections::BTreeSet;
use std::net::IpAddr;

use aws_smithy_types::base64;
use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::Method;
use axum::http::StatusCode;
use axum::http::header;
use axum::http::request::Parts;
use axum::http::uri::Authority;
use url::Url;

use crate::http::problem::Problem;
use crate::http::request::Admission;
use crate::http::request::TOKEN_HEADER;
use crate::secret::Secret;

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entrance {
    /// The unix socket: its file says who may.
    Socket,
    /// A TCP listener for everything; with the address that the connection came to.
    Tcp(IpAddr),
    /// The TCP listener for webhooks alone.
    Hooks,
}

/// The rules that are in force.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// What everybody on TCP must show, once it is set.
    token: Option<Secret>,
    /// Names other than those of loopback by which we may be called.
    hosts: BTreeSet<String>,
}

impl Rules {
    /// Rules with this token, where others know us as `public_url`.
    pub fn new(token: Option<Secret>, public_url: Option<&Url>) -> Self {
        let host = public_url.and_then(Url::host_str);
        Self {
            token,
            hosts: host.into_iter().map(str::to_ascii_lowercase).collect(),
        }
    }

    /// Lets a request in, or says why not.
    pub(super) fn admit(&self, request: &Parts, entrance: Entrance) -> Result<Admission, Problem> {
        let host = named_host(request)?;
        let path = request.uri.path();
        let address = match entrance {
            Entrance::Socket => return Ok(Admission::Local),
            Entrance::Hooks if is_hook(path) || path == "/healthz" => return Ok(Admission::Open),
            Entrance::Hooks => return Err(Problem::not_found(format!("there is no {path} here"))),
            Entrance::Tcp(address) => address,
        };
        // The token in the path is a proof that no web page of another can make its reader send.
        if is_hook(path) {
            return Ok(Admission::Open);
        }
        let host = host.host().to_ascii_lowercase();
        let is_public = self.hosts.contains(&host);
        if !is_public && !is_own(&host, address) {
            let what = format!("{host:?} is no name of this daemon");
            return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, what)
                .hint("server.public_url names the host by which others reach it"));
        }
        if is_writing(&request.method) && !self.is_own_page(&request.headers, address) {
            let what = "a page of another site asks for this";
            return Err(Problem::new(StatusCode::FORBIDDEN, what)
                .hint("send it from a program, without `Origin`"));
        }
        match &self.token {
            Some(token) => match borne(&request.headers, token) {
                Some(Admission::Password) if !takes_password(&request.method, path) => {
                    let what = "a browser may look, and press the buttons of the page";
                    Err(Problem::new(StatusCode::FORBIDDEN, what)
                        .hint(format!("programs send `{TOKEN_HEADER}`")))
                }
                Some(admission) => Ok(admission),
                None if is_open(path, request.uri.query()) => Ok(Admission::Open),
                None if is_page(path) => Err(asked_for_password()),
                None => Err(unauthorized("this needs the daemon's token")),
            },
            // Whoever calls us by our public name comes from outside, through a proxy on this machine.
            None if is_public && !is_loopback(&host) => {
                if is_open(path, request.uri.query()) {
                    Ok(Admission::Open)
                } else {
                    Err(unauthorized("this needs a token, and the daemon has none")
                        .hint("set server.token"))
                }
            }
            None => Ok(Admission::Local),
        }
    }
}

impl Rules {
    /// Whether no page asks, or one of our own. A browser sends simple requests of any page anywhere, loopback too,
    /// and says in `Origin` whose page it is.
    fn is_own_page(&self, headers: &HeaderMap, address: IpAddr) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else {
            return true;
        };
        let origin = origin
            .to_str()
            .ok()
            .and_then(|origin| Url::parse(origin).ok());
        let host = origin.as_ref().and_then(Url::host_str);
        host.is_some_and(|host| self.hosts.contains(host) || is_own(host, address))
    }
}

fn is_writing(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn unauthorized(what: &str) -> Problem {
    let scheme = HeaderValue::from_static("Bearer realm=\"reelvault\"");
    Problem::new(StatusCode::UNAUTHORIZED, what)
        .hint(format!(
            "send `Authorization: Bearer TOKEN` or `{TOKEN_HEADER}: TOKEN`, with what server.token names"
        ))
        .header(header::WWW_AUTHENTICATE, scheme)
}

/// Has a browser ask its reader. It keeps the answer, and sends it along with all that the page asks for.
fn asked_for_password() -> Problem {
    let scheme = HeaderValue::from_static("Basic realm=\"reelvault\", charset=\"UTF-8\"");
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "this needs the daemon's token, as the password of any user",
    )
    .header(header::WWW_AUTHENTICATE, scheme)
}

/// The host that a request names: its target's where that is a whole address, else its only `Host`.
fn named_host(request: &Parts) -> Result<Authority, Problem> {
    let mut named = request.headers.get_all(header::HOST).iter();
    let host = named.next().and_then(|host| host.to_str().ok());
    let host: Option<Authority> = host.and_then(|host| host.parse().ok());
    let (Some(host), None) = (host, named.next()) else {
        return Err(Problem::bad_request("a request names its host, once"));
    };
    match request.uri.authority() {
        // The two say the same, or somebody before us may have read another than we.
        Some(target) if *target != host => Err(Problem::bad_request(
            "the target and `Host` name different hosts",
        )),
        Some(_) | None => Ok(host),
    }
}

/// Which way the token is borne, if it is.
fn borne(headers: &HeaderMap, token: &Secret) -> Option<Admission> {
    let own = headers.get(TOKEN_HEADER).and_then(|it| it.to_str().ok());
    if own.is_some_and(|own| token.is(own)) {
        return Some(Admission::Token);
    }
    let bearer = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, bearer) = bearer.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("basic") {
        let shown = base64::decode(bearer.trim()).ok()?;
        let (_, password) = std::str::from_utf8(&shown).ok()?.split_once(':')?;
        return token.is(password).then_some(Admission::Password);
    }
    (scheme.eq_ignore_ascii_case("bearer") && token.is(bearer.trim())).then_some(Admission::Bearer)
}

/// What a browser that knows the token may do. It sends it along with whatever any page has it ask for: so nothing is
/// written but by the page itself, which knows its own buttons, and nothing is asked of a provider.
fn takes_password(method: &Method, path: &str) -> bool {
    !path.starts_with("/gateway/") && (!is_writing(method) || path.starts_with("/tasks/"))
}

/// What people open in a browser.
fn is_page(path: &str) -> bool {
    path == "/" || path.starts_with("/tasks/")
}

fn is_hook(path: &str) -> bool {
    path.starts_with("/hooks/")
}

/// What needs no token: whether we live, links that carry a proof of their own, and the gateway, where the provider's
/// key is one.
fn is_open(path: &str, query: Option<&str>) -> bool {
    let is_signed = || query.is_some_and(|query| query.split('&').any(|it| it.starts_with("sig=")));
    matches!(path, "/healthz" | "/readyz")
        || path.starts_with("/gateway/")
        || (path.starts_with("/api/v1/tasks/") && path.contains("/assets/") && is_signed())
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|it| it.is_loopback())
}

/// Whether `host` can only mean us for whoever came to `address`.
fn is_own(host: &str, address: IpAddr) -> bool {
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    is_loopback(host) || literal.parse::<IpAddr>() == Ok(address.to_canonical())
}
