//! The way to the server: the URL with what we add to it, encryption, and the pool of connections.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Manager;
use deadpool_postgres::ManagerConfig;
use deadpool_postgres::Pool;
use deadpool_postgres::RecyclingMethod;
use deadpool_postgres::Runtime;
use tokio_postgres::NoTls;
use tokio_postgres::config::Host;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;

use crate::http::roots::Roots;
use crate::manifest::Config;
use crate::manifest::ManifestError;
use crate::secret::Secret;

/// How long a server may take to let us in.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a verb waits for a connection while others have them all.
const WAIT_TIMEOUT: Duration = Duration::from_secs(5);

/// A server that is silent on an open connection for this long is taken for gone.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// The server's own bounds on one statement, on the wait for another's lock, and on a transaction whose client is
/// silent: what a dead machine holds is free before its leases are. Nothing that we ask is worth starting helpers or
/// compiling anything, which takes longer than the answer.
const SERVER_BOUNDS: &str = "-c statement_timeout=8s -c lock_timeout=5s \
     -c idle_in_transaction_session_timeout=20s -c max_parallel_workers_per_gather=0 -c jit=off";

/// How to reach one server.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) config: tokio_postgres::Config,
    /// `None` where nothing is encrypted.
    pub(super) tls: Option<MakeRustlsConnect>,
    /// The URL without its password.
    pub(super) shown: String,
}

impl Way {
    /// Reads the URL.
    pub(super) fn of(config: &Config, password: Option<&Secret>) -> Result<Self, ManifestError> {
        let wrong = || ManifestError::Url {
            url: shown(&config.url),
        };
        let mut server = server_of(&config.url).ok_or_else(wrong)?;
        if let Some(password) = password {
            server.password(password.expose());
        }
        if server.get_application_name().is_none() {
            server.application_name("reelvault");
        }
        if !config.pooler {
            // The later word counts: whoever sets one of the bounds has that one.
            let own = server.get_options().unwrap_or_default();
            let options = format!("{SERVER_BOUNDS} {own}");
            server.options(options.trim_end());
        }
        server
            .connect_timeout(CONNECT_TIMEOUT)
            .keepalives_idle(SILENCE_MAX)
            .tcp_user_timeout(SILENCE_MAX);
        let is_local = |host: &Host| matches!(host, Host::Unix(_));
        let is_plain =
            server.get_ssl_mode() == SslMode::Disable || server.get_hosts().iter().all(is_local);
        Ok(Self {
            tls: if is_plain { None } else { Some(encryption()?) },
            config: server,
            shown: shown(&config.url),
        })
    }

    /// A pool of at most `most` connections, none of which is open yet.
    pub(super) fn pool(&self, most: usize) -> Result<Pool, ManifestError> {
        let settings = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let config = self.config.clone();
        let manager = match &self.tls {
            Some(tls) => Manager::from_config(config, tls.clone(), settings),
            None => Manager::from_config(config, NoTls, settings),
        };
        let pool = Pool::builder(manager)
            .max_size(most)
            .wait_timeout(Some(WAIT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .runtime(Runtime::Tokio1)
            .build();
        pool.map_err(|error| ManifestError::Engine {
            verb: "open",
            what: error.to_string(),
        })
    }
}

/// What a URL says of the server, if it says enough.
pub(super) fn server_of(url: &str) -> Option<tokio_postgres::Config> {
    let server = parsed(url)?;
    let is_whole = !server.get_hosts().is_empty() && server.get_dbname().is_some();
    is_whole.then_some(server)
}

fn parsed(url: &str) -> Option<tokio_postgres::Config> {
    // Whoever encrypts here also verifies: the client knows no weaker way, and no word for the stronger ones.
    let url = ["verify-full", "verify-ca"]
        .iter()
        .fold(url.to_owned(), |url, word| {
            url.replace(&format!("sslmode={word}"), "sslmode=require")
        });
    tokio_postgres::Config::from_str(&url).ok()
}

/// Parameters of a URL that are worth a word; the client takes a few more.
const PARAMETERS: &str = "host, hostaddr, port, user, dbname, sslmode, target_session_attrs, load_balance_hosts, \
     connect_timeout, application_name, options, keepalives";

/// The parameter of the URL that is not taken, and what is taken in its place. Values may be secret, and are not shown.
pub(super) fn wrong_parameter(url: &str) -> Option<(String, String)> {
    let (_, query) = url.split_once('?')?;
    let is_wrong = |pair: &&str| parsed(&format!("postgres://host/database?{pair}")).is_none();
    let wrong = query.split('&').find(is_wrong)?;
    let (name, value) = wrong.split_once('=').unwrap_or((wrong, ""));
    let instead = match name {
        "sslmode" => "disable, prefer, require, verify-ca or verify-full".to_owned(),
        "sslrootcert" => {
            "an authority of your own belongs among the machine's, or into the file that SSL_CERT_FILE names"
                .to_owned()
        }
        _ => format!("write them as libpq does, of these: {PARAMETERS}"),
    };
    let what = match name {
        "sslmode" => format!("no sslmode is {value:?}"),
        _ => format!("parameter {name} is not taken as it stands"),
    };
    Some((what, instead))
}

/// The URL as it may be shown: without a password, wherever it stands.
pub(super) fn shown(url: &str) -> String {
    // The client takes what stands before the first @ for a user and a password, whatever is in it.
    let (whom, place) = url.split_once('@').unwrap_or(("", url));
    let (place, query) = place.split_once('?').unwrap_or((place, ""));
    // A password with an @ in it goes on in what the client takes for the host.
    let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
    let mut shown = match whom.split_once("://") {
        None => place.to_owned(),
        Some((scheme, user)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}@{place}")
        }
    };
    let is_public = |pair: &&str| !pair.is_empty() && !pair.starts_with("password");
    for (place, pair) in query.split('&').filter(is_public).enumerate() {
        shown.push(if place == 0 { '?' } else { '&' });
        shown.push_str(pair);
    }
    shown
}

fn encryption() -> Result<MakeRustlsConnect, ManifestError> {
    let failed = |what: String| ManifestError::Engine { verb: "open", what };
    let roots = Roots::load(&[]).map_err(|error| failed(error.to_string()))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .with_root_certificates(roots.store())
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        let check = |url: &str, expected: &str| assert_eq!(shown(url), expected);
        check("postgres://me:s3cret@db/x", "postgres://me@db/x");
        check("postgres://me:s3:c@ret@db/x?a=b", "postgres://me@db/x?a=b");
        check("postgres://me:s3?cret@db/x?a=b", "postgres://me@db/x?a=b");
        check("postgres://db/x?user=a@b", "postgres://db/x?user=a@b");
        check(
            "postgres://me@/x?host=/run/pg",
            "postgres://me@/x?host=/run/pg",
        );
        check(
            "postgres:///x?password=s3cret&host=/run/pg",
            "postgres:///x?host=/run/pg",
        );
        check("postgres://db/x", "postgres://db/x");
    }

    #[test]
    fn a_parameter_that_is_not_taken_is_named_without_its_value() {
        let wrong = |query: &str| wrong_parameter(&format!("postgres://me@db/x{query}"));
        for good in [
            "",
            "?sslmode=verify-full",
            "?application_name=a&sslmode=disable",
            "?host=/run/pg&port=1",
        ] {
            assert_eq!(wrong(good), None, "{good}");
        }
        for parameter in PARAMETERS.split(", ") {
            let value = match parameter {
                "hostaddr" => "127.0.0.1",
                "sslmode" => "prefer",
                "target_session_attrs" => "read-write",
                "load_balance_hosts" => "random",
                _ => "1",
            };
            assert_eq!(wrong(&format!("?{parameter}={value}")), None, "{parameter}");
        }
        let (what, instead) = wrong("?port=1&sslmode=allow").unwrap();
        assert_eq!(what, "no sslmode is \"allow\"");
        assert!(instead.contains("verify-full"), "{instead}");
        let (what, instead) = wrong("?sslrootcert=/a.pem").unwrap();
        assert!(what.contains("sslrootcert"), "{what}");
        assert!(instead.contains("SSL_CERT_FILE"), "{instead}");
        let (what, instead) = wrong("?pasword=s3cret").unwrap();
        assert_eq!(what, "parameter pasword is not taken as it stands");
        assert!(instead.contains("target_session_attrs"), "{instead}");
        assert!(wrong("?port=x").is_some() && wrong("?port").is_some());
    }

    #[test]
    fn a_url_says_host_and_database_and_may_say_how_it_is_verified() {
        let is_whole = |url: &str| server_of(url).is_some();
        assert!(is_whole("postgres://me@db/x?sslmode=verify-full"));
        assert!(is_whole(
            "postgresql://me@one,two/x?target_session_attrs=read-write"
        ));
        assert!(is_whole("postgres:///x?host=/run/postgresql"));
        assert!(!is_whole("postgres://db"));
        assert!(!is_whole("postgres:///x"));
        assert!(!is_whole("postgres://db/x?sslmode=perhaps"));
    }
}
