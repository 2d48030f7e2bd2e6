//! Servers that are other than expected: encrypted, too old, with a clock of their own.

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;

use super::check;
use super::machine;
use super::outside;
use super::refused;
use super::server::Database;
use super::server::Server;
use crate::process::Home;
use crate::process::Outside;

/// What the server's certificate is made for.
const NAME: &str = "db.internal";

/// Gives the server a certificate of a private authority and lets it listen at an address of loopback that no other
/// test uses. Gives the authority's certificate and the address.
fn encrypt(server: &Server) -> (String, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap().pem();

    // Written by the server itself: so they are its own, as it wants its key to be.
    let write = |text: &str, command: &str| {
        let lines = text.trim_end().replace('\n', "', '");
        server.sql(
            "postgres",
            &format!("COPY (SELECT unnest(ARRAY['{lines}'])) TO PROGRAM 'umask 077; {command}'"),
        );
    };
    write(&certificate, "cat > server.crt");
    write(&key.serialize_pem(), "cat > server.key");
    write("hostssl all all 127.0.0.0/8 trust", "cat >> pg_hba.conf");
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let address = format!("127.43.{high}.{low}");
    server.sql("postgres", "ALTER SYSTEM SET ssl = on");
    let listen = format!("ALTER SYSTEM SET listen_addresses = '{address}'");
    server.sql("postgres", &listen);
    server.stop();
    server.start();
    (authority, address)
}

/// The same outside for a machine that trusts the authorities in a file.
fn trusting(outside: &Outside, database: &Database, url: &str, authorities: &str) -> Home {
    let mut variables = crate::world::variables(&outside.bucket);
    let folder = outside.home.path();
    let file = folder.join(format!("authorities-{}.pem", authorities.len()));
    std::fs::write(&file, authorities).unwrap();
    variables.insert(
        "SSL_CERT_FILE".to_owned(),
        file.to_string_lossy().into_owned(),
    );
    let home = Home::new(variables);
    let url = url.replace("DATABASE", &database.name);
    home.configure(&machine(outside, &url, "one", ""));
    home
}

#[tokio::test]
async fn an_encrypted_server_is_verified_and_one_that_cannot_be_is_refused() {
    let server = Server::own();
    let (authority, address) = encrypt(&server);
    let (outside, database) = (outside().await, server.database());
    let at = |name: &str, mode: &str| {
        format!("postgres://reelvault@{name}/DATABASE?hostaddr={address}&sslmode={mode}")
    };
    outside.home.configure(&outside.config("", ""));
    let good = trusting(&outside, &database, &at(NAME, "verify-full"), &authority);
    let ids = outside.submit(2);
    for id in &ids {
        good.done(&["add", id.as_str()]).await;
    }
    let daemon = good.start().await;
    good.prints(&["status", "--json"], "\"archived\":2").await;
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE datname = current_database() AND client_addr IS NOT NULL";
    assert_eq!(server.sql(&database.name, encrypted), "t\n");
    good.hear(&daemon.stop().await);
    outside.assert_all_safe();

    let refused = async |home: Home, what: &str| {
        let outcome = home.run(&["run"]).await;
        assert_eq!(outcome.code, 11, "{outcome:?}");
        check(&outcome.stderr, what);
        check(&outcome.stderr, "hint:  ");
    };
    for mode in ["require", "verify-full", "prefer"] {
        // The right server under a name that its certificate is not for.
        let home = trusting(&outside, &database, &at("other.internal", mode), &authority);
        refused(home, "the certificate of postgres://").await;
        // Nobody whom this machine trusts has signed it.
        let stranger = KeyPair::generate().unwrap();
        let stranger = CertificateParams::new(vec!["x".to_owned()])
            .unwrap()
            .self_signed(&stranger);
        let stranger = stranger.unwrap().pem();
        let home = trusting(&outside, &database, &at(NAME, mode), &stranger);
        refused(home, "is not trusted").await;
    }
    // Encryption is wanted, and the server does without.
    server.sql("postgres", "ALTER SYSTEM SET ssl = off");
    server.stop();
    server.start();
    let home = trusting(&outside, &database, &at(NAME, "require"), &authority);
    refused(home, "server does not support TLS").await;
}

/// A role for which the server's `function` says something else: a schema that comes before the server's own has another.
pub(super) fn deceived(server: &Server, database: &Database, function: &str) -> String {
    let (name, role) = (&database.name, format!("{}_role", database.name));
    let sql = format!(
        "CREATE SCHEMA deceit; CREATE FUNCTION deceit.{function};
        CREATE ROLE {role} SUPERUSER LOGIN; ALTER ROLE {role} SET search_path = public, deceit, pg_catalog"
    );
    server.sql(name, &sql);
    format!("postgres://{role}@/{name}?host={}", server.socket())
}

/// Takes the role away again: the server is everybody's.
pub(super) fn forget_role(server: &Server, database: &Database) {
    let role = format!("{}_role", database.name);
    let drop = format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}");
    server.sql(&database.name, &drop);
}

#[tokio::test]
async fn an_older_server_is_refused() {
    let (server, outside) = (Server::shared(), outside().await);
    let database = server.database();
    let old = "current_setting(text) RETURNS text LANGUAGE sql
        AS $$ SELECT CASE $1 WHEN 'server_version_num' THEN '130011' ELSE pg_catalog.current_setting($1) END $$";
    let url = deceived(&server, &database, old);
    let said = refused(&outside, &url, "").await;
    check(
        &said,
        "the server is PostgreSQL 13, and 14 is the oldest that will do",
    );
    check(&said, "hint:  upgrade the server");
    let checked = outside.home.run(&["check"]).await;
    check(&checked.stdout, "the server is PostgreSQL 13");
    let made = "SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(server.sql(&database.name, made), "0\n");
    forget_role(&server, &database);
}
