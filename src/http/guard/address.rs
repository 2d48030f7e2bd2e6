//! Which addresses are public: everything but the networks listed here.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

/// Refuses every address that is not a public one, with the reason.
pub(super) fn judge_address(ip: IpAddr) -> Result<(), &'static str> {
    match ip {
        IpAddr::V4(ip) => judge_v4(ip),
        IpAddr::V6(ip) => judge_v6(ip),
    }
}

/// IPv4 networks that are not public, with the length of their prefix.
const REFUSED_V4: [(Ipv4Addr, u32, &str); 16] = [
    (Ipv4Addr::UNSPECIFIED, 8, "this network"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "a private address"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "a carrier's address"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "a loopback address"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "a link-local address"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "a private address"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "a protocol's address"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "a documentation address"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "a relay's address"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "a private address"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "a benchmark's address"),
    (
        Ipv4Addr::new(198, 51, 100, 0),
        24,
        "a documentation address",
    ),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "a documentation address"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "a multicast address"),
    (Ipv4Addr::BROADCAST, 32, "broadcast"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "a reserved address"),
];

/// IPv6 networks that are not public. The last line of [`judge_v6`] refuses all but global unicast; those outside of
/// it stand here for the sake of their reasons.
const REFUSED_V6: [(Ipv6Addr, u32, &str); 14] = [
    (Ipv6Addr::UNSPECIFIED, 128, "the unspecified address"),
    (Ipv6Addr::LOCALHOST, 128, "a loopback address"),
    (
        Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0),
        96,
        "an IPv4 address in IPv6",
    ),
    (
        Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0),
        96,
        "an IPv4 address in IPv6",
    ),
    (Ipv6Addr::UNSPECIFIED, 96, "an IPv4 address in IPv6"),
    (
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0),
        96,
        "an IPv4 address behind NAT64",
    ),
    (
        Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0),
        48,
        "an IPv4 address behind NAT64",
    ),
    // Teredo (2001::/32), ORCHID, benchmarks: nothing in the block of protocol assignments serves files.
    (
        Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0),
        23,
        "a protocol's address",
    ),
    (
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0),
        32,
        "a documentation address",
    ),
    (
        Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0),
        20,
        "a documentation address",
    ),
    (
        Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0),
        16,
        "an IPv4 address behind 6to4",
    ),
    (
        Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0),
        7,
        "a private address",
    ),
    (
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
        10,
        "a link-local address",
    ),
    (
        Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0),
        8,
        "a multicast address",
    ),
];

fn judge_v4(ip: Ipv4Addr) -> Result<(), &'static str> {
    let bits = ip.to_bits();
    let within = |network: Ipv4Addr, prefix| (bits ^ network.to_bits()).leading_zeros() >= prefix;
    let refused = REFUSED_V4
        .iter()
        .find(|(network, prefix, _)| within(*network, *prefix));
    refused.map_or(Ok(()), |(_, _, why)| Err(why))
}

fn judge_v6(ip: Ipv6Addr) -> Result<(), &'static str> {
    let bits = ip.to_bits();
    let within = |network: Ipv6Addr, prefix| (bits ^ network.to_bits()).leading_zeros() >= prefix;
    let refused = REFUSED_V6
        .iter()
        .find(|(network, prefix, _)| within(*network, *prefix));
    if let Some((_, _, why)) = refused {
        return Err(why);
    }
    if within(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3) {
        Ok(())
    } else {
        Err("not a global address")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_of_the_refused_networks() {
        for (ip, allowed) in [
            ("0.255.255.255", false),
            ("1.0.0.0", true),
            ("9.255.255.255", true),
            ("10.255.255.255", false),
            ("11.0.0.0", true),
            ("100.64.0.0", false),
            ("100.127.255.255", false),
            ("126.255.255.255", true),
            ("127.255.255.255", false),
            ("128.0.0.0", true),
            ("169.253.255.255", true),
            ("169.254.0.0", false),
            ("169.255.0.0", true),
            ("192.0.0.255", false),
            ("192.0.2.255", false),
            ("192.0.3.0", true),
            ("192.167.255.255", true),
            ("192.168.255.255", false),
            ("192.169.0.0", true),
            ("198.18.0.0", false),
            ("198.19.255.255", false),
            ("198.51.100.255", false),
            ("203.0.113.0", false),
            ("203.0.114.0", true),
            ("224.0.0.0", false),
            ("239.255.255.255", false),
            ("240.0.0.0", false),
            ("1fff:ffff::", false),
            ("2000::", true),
            ("2001:1ff:ffff::", false),
            ("2002::", false),
            ("3fff:fff::", false),
            ("3fff:1000::", true),
            ("4000::", false),
            ("::1.2.3.4", false),
            ("::ffff:8.8.8.8", false),
        ] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(judge_address(ip).is_ok(), allowed, "{ip}");
        }
    }
}
