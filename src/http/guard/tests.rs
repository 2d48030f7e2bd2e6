//! The guard against every way to name an inside address.

use super::*;

/// Ways to write a host that must not be asked; the client's test tries them over real sockets too.
pub(crate) const SPELLINGS: [&str; 84] = [
    // The loopback network.
    "127.0.0.1",
    "127.0.0.2",
    "127.1",
    "127.0.1",
    "127.000.000.001",
    "0177.0.0.1",
    "0177.0.0.01",
    "0x7f.0.0.1",
    "0x7f.1",
    "0x7f000001",
    "0X7F000001",
    "0x7f000002",
    "2130706433",
    "2130706434",
    "017700000001",
    "00000000000000000177.0.0.1",
    "127.0.0.1.",
    "127.0.0.0x1",
    "%31%32%37.0.0.1",
    "127%2e0%2e0%2e1",
    "１２７.０.０.１",
    "127。0。0。1",
    "⑫7.0.0.1",
    "①②⑦.⓪.⓪.①",
    "0",
    "0.0.0.0",
    "0x0",
    "00",
    // IPv6, and IPv4 within it.
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "[::0001]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:7f00:0001]",
    "[::FFFF:127.0.0.2]",
    "[::127.0.0.1]",
    "[::7f00:1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "[fe80::1%lo]",
    "[::1%25lo]",
    "[febf::1]",
    "[fec0::1]",
    "[fc00::1]",
    "[fd00::2]",
    "[fdff:ffff::1]",
    "[ff02::1]",
    "[100::1]",
    "[2001:db8::1]",
    "[3fff::1]",
    "[5f00::1]",
    // Names.
    "localhost",
    "LOCALHOST",
    "localhost.",
    "ｌｏｃａｌｈｏｓｔ",
    "a.localhost",
    "localhost.localdomain",
    "metadata",
    "metadata.google.internal",
    "metadata.google.internal.",
    "METADATA.GOOG",
    "instance-data.ec2.internal",
    "printer.local",
    // Tricks with what stands before the host.
    "example.com@127.0.0.1",
    "example.com:443@127.0.0.1",
    "user:word@example.com",
    "example.com%40@127.0.0.1",
    // Other networks.
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "169.254.169.254",
    "0xa9fea9fe",
    "2852039166",
    "100.100.100.200",
    "255.255.255.255",
];

#[track_caller]
fn check(guard: &Guard, url: &str, allowed: bool) {
    let verdict = Url::parse(url).map(|url| guard.check(&url));
    assert_eq!(matches!(verdict, Ok(Ok(()))), allowed, "{url}: {verdict:?}");
}

#[test]
fn no_spelling_of_an_inside_address_gets_through() {
    for spelling in SPELLINGS {
        check(
            &Guard::public(),
            &format!("https://{spelling}/v.mp4"),
            false,
        );
        check(
            &Guard::public(),
            &format!("https://{spelling}:8443/v.mp4"),
            false,
        );
    }
}

#[test]
fn public_hosts_get_through() {
    let public = Guard::public();
    for host in [
        "files.example.com",
        "files.example.com.",
        "notlocalhost.example",
        "local.example.com",
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "[2606:4700::6810:84e5]",
        "[2001:4860:4860::8888]",
        "[2001:200::1]",
        "[2003::1]",
    ] {
        check(&public, &format!("https://{host}/v.mp4?X-Sig=1"), true);
    }
}

#[test]
fn only_https_or_with_private_addresses_http() {
    let private = Guard::private();
    for (url, public_allows, private_allows) in [
        ("https://files.example.com/", true, true),
        ("http://files.example.com/", false, true),
        ("http://127.0.0.1/", false, true),
        ("https://[::1]/", false, true),
        ("http://localhost:9000/", false, true),
        ("ftp://files.example.com/", false, false),
        ("file:///etc/passwd", false, false),
        ("gopher://127.0.0.1/", false, false),
        ("unix:/run/x.sock", false, false),
        ("data:text/plain,x", false, false),
    ] {
        check(&Guard::public(), url, public_allows);
        check(&private, url, private_allows);
    }
}

#[test]
fn a_list_of_hosts_lets_only_those_through() {
    let globs = ["*.example.com".to_owned(), "cdn.example.net".to_owned()];
    let public = Guard::public().with_hosts(&globs).unwrap();
    let private = Guard::private().with_hosts(&globs).unwrap();
    for (url, allowed) in [
        ("https://files.example.com/", true),
        ("https://a.b.EXAMPLE.com/", true),
        ("https://files.example.com./", true),
        ("https://cdn.example.net/", true),
        ("https://example.com/", false),
        ("https://files.example.com.evil.net/", false),
        ("https://evilexample.com/", false),
        ("https://8.8.8.8/", false),
    ] {
        check(&public, url, allowed);
        check(&private, url, allowed);
    }
    assert!(Guard::public().with_hosts(&["[".to_owned()]).is_err());
}

#[test]
fn an_answer_is_freed_of_inside_addresses() {
    let addresses = |ips: &[&str]| -> Vec<SocketAddr> {
        ips.iter()
            .map(|ip| SocketAddr::new(ip.parse().unwrap(), 0))
            .collect()
    };
    let public = Guard::public();
    let mixed = addresses(&["127.0.0.1", "8.8.8.8", "fd00::2", "2606:4700::1"]);
    let kept = public.filter("cdn.example.com", mixed.clone()).unwrap();
    assert_eq!(kept, addresses(&["8.8.8.8", "2606:4700::1"]));
    let inside = public.filter("rebind.example.com", addresses(&["169.254.169.254", "::1"]));
    assert!(
        matches!(inside, Err(HttpError::Forbidden { .. })),
        "{inside:?}"
    );
    assert_eq!(Guard::private().filter("x", mixed.clone()), Ok(mixed));
}

#[tokio::test]
async fn the_resolver_refuses_what_the_machine_answers() {
    let resolve = |guard| GuardedResolver::new(guard).resolve("localhost".parse().unwrap());
    let Err(refused) = resolve(Guard::public()).await else {
        panic!("localhost was let through");
    };
    let refused = refused.downcast_ref::<HttpError>().unwrap();
    assert!(matches!(refused, HttpError::Forbidden { .. }), "{refused}");
    assert!(resolve(Guard::private()).await.unwrap().count() > 0);
}

#[test]
fn says_why() {
    let url = Url::parse("https://0x7f.1/v.mp4?X-Sig=canary").unwrap();
    let refused = Guard::public().check(&url).unwrap_err().to_string();
    assert_eq!(refused, "127.0.0.1 is not allowed: a loopback address");
}
