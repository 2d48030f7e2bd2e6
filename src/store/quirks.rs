//! One table: where each kind of store differs from the others, and why.

use url::Host;

use crate::store::Checksum;

/// S3's least length of a part that is not the last one; every store that speaks the protocol has the same.
const S3_PART_SIZE_MIN: u64 = 5 << 20;

/// What a store can and cannot do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each read at its own place"
)]
pub struct Quirks {
    /// The kind's name, as `quirks = "..."` takes it.
    pub name: &'static str,
    /// Parts of one upload that may be under way at once.
    pub parts_at_once: u32,
    /// The least length of a part that is not the last one.
    pub part_size_min: u64,
    /// Whether an object that fits one part is written in one request.
    pub single_put: bool,
    /// How a part's body is to be given.
    pub body: BodyPolicy,
    /// What tells that the bytes arrived.
    pub proof: Proof,
    /// Whether the store knows `If-None-Match: *`.
    pub conditional: bool,
    /// Whether a completion is known to heed it. Some stores do so at `PutObject` alone, and an upload takes minutes, so it
    /// is looked once more whether something stands there.
    pub completes_conditionally: bool,
    /// Whether the completion tells the store how long the object has to be.
    pub declares_length: bool,
    /// Whether objects carry metadata, and so the [`Identity`](crate::store::Identity).
    pub has_identity: bool,
}

/// How a part's body is to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyPolicy {
    /// The origin's frames are the part's body, as they come.
    PassThrough,
    /// All frames first, since something over all of them stands in the part's header.
    Filled,
}

/// What tells that the bytes arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The store computes a CRC64NVME over the whole object by itself, and HEAD gives it.
    ByStore,
    /// Each part carries its CRC64NVME, the completion the whole's: the store checks them, and HEAD gives the latter.
    Crc64nvme,
    /// Each part carries its CRC32: the store checks it.
    Crc32,
    /// Each part's SHA-256 stands in the signature: the store checks it.
    SignedPayload,
    /// Nothing but the length, and TLS on the way.
    Length,
}

/// AWS. Computes the CRC64NVME of whatever came without a checksum, so bodies pass through and are compared after.
const AWS: Quirks = Quirks {
    name: "aws",
    parts_at_once: 4,
    part_size_min: S3_PART_SIZE_MIN,
    single_put: true,
    body: BodyPolicy::PassThrough,
    proof: Proof::ByStore,
    conditional: true,
    completes_conditionally: true,
    declares_length: true,
    has_identity: true,
};

/// Cloudflare R2. Its documents ask for requests without checksum headers; what it checks in every request is the
/// signed SHA-256. It answers 500 to many parts of one upload at once. `MpuObjectSize` is not in its documents. Equal
/// parts, which it checks at the completion, every store gets.
const R2: Quirks = Quirks {
    name: "r2",
    parts_at_once: 2,
    body: BodyPolicy::Filled,
    proof: Proof::SignedPayload,
    declares_length: false,
    ..AWS
};

/// A store that nobody named. The signed SHA-256 is the one proof that the protocol itself asks for, so every store
/// takes it; a completion without extras suits the strictest of them.
const GENERIC: Quirks = Quirks {
    name: "generic",
    parts_at_once: 4,
    completes_conditionally: false,
    ..R2
};

/// A store that answers 501 to `If-None-Match`: the HEAD before the write is the only guard against overwriting.
const PLAIN: Quirks = Quirks {
    name: "plain",
    conditional: false,
    ..GENERIC
};

/// A local folder. A file has no metadata and no checksum of its own: HEAD reads it. Every object goes through a
/// partial file, so there is no single write. Nothing is signed or declared.
pub(super) const FOLDER: Quirks = Quirks {
    name: "fs",
    parts_at_once: 4,
    part_size_min: 1,
    single_put: false,
    body: BodyPolicy::PassThrough,
    proof: Proof::ByStore,
    conditional: true,
    completes_conditionally: true,
    declares_length: false,
    has_identity: false,
};

/// All kinds that `quirks = "..."` can name, and which they are like.
const NAMED: [(&str, Quirks); 8] = [
    ("aws", AWS),
    ("r2", R2),
    ("generic", GENERIC),
    ("plain", PLAIN),
    ("minio", GENERIC),
    // HEAD gives no checksum that the writer did not send.
    ("garage", GENERIC),
    // Answers 501 to `If-None-Match`, and has refused CRC32 headers at times.
    ("b2", PLAIN),
    // Conditions are on generations there, not on `If-None-Match`; checksum headers are ignored.
    ("gcs", PLAIN),
];

/// Kinds that are told by the end of their endpoint's host name.
const HOSTS: [(&str, &str); 5] = [
    ("amazonaws.com", "aws"),
    ("amazonaws.com.cn", "aws"),
    ("r2.cloudflarestorage.com", "r2"),
    ("backblazeb2.com", "b2"),
    ("storage.googleapis.com", "gcs"),
];

/// The names that `quirks = "..."` takes, for people.
pub(super) fn names() -> String {
    NAMED.map(|(name, _)| name).join(", ")
}

/// The kind of this name.
pub(super) fn named(name: &str) -> Option<Quirks> {
    let (name, like) = NAMED.into_iter().find(|(known, _)| *known == name)?;
    Some(Quirks { name, ..like })
}

/// The kind that answers at `endpoint`: AWS where there is none.
pub(super) fn at(endpoint: Option<&url::Url>) -> Quirks {
    let Some(endpoint) = endpoint else { return AWS };
    let Some(Host::Domain(host)) = endpoint.host() else {
        return GENERIC;
    };
    let is_under = |domain: &str| {
        let head = host.strip_suffix(domain);
        head.is_some_and(|head| head.is_empty() || head.ends_with('.'))
    };
    let known = HOSTS.iter().find(|(domain, _)| is_under(domain));
    known.and_then(|(_, name)| named(name)).unwrap_or(GENERIC)
}

impl Quirks {
    /// R2, which has its own section in the configuration.
    pub(super) fn r2() -> Self {
        R2
    }

    /// These quirks with the checksum that the configuration asks for.
    #[must_use]
    pub(super) fn with_checksum(self, checksum: Option<Checksum>) -> Self {
        let filled = |proof| Self {
            body: BodyPolicy::Filled,
            proof,
            ..self
        };
        match (checksum, self.proof) {
            (None, _) | (Some(Checksum::None), Proof::ByStore) => self,
            (Some(Checksum::Crc64nvme), _) => filled(Proof::Crc64nvme),
            (Some(Checksum::Crc32), _) => filled(Proof::Crc32),
            (
                Some(Checksum::None),
                Proof::Crc64nvme | Proof::Crc32 | Proof::SignedPayload | Proof::Length,
            ) => Self {
                body: BodyPolicy::PassThrough,
                proof: Proof::Length,
                ..self
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_host(endpoint: &str, name: &str) {
        assert_eq!(
            at(Some(&endpoint.parse().unwrap())).name,
            name,
            "{endpoint}"
        );
    }

    #[test]
    fn kinds_are_told_by_their_host() {
        assert_eq!(at(None).name, "aws");
        check_host("https://s3.eu-central-1.amazonaws.com", "aws");
        check_host("https://s3.cn-north-1.amazonaws.com.cn", "aws");
        check_host("https://0123.eu.r2.cloudflarestorage.com", "r2");
        check_host("https://s3.us-west-004.backblazeb2.com", "b2");
        check_host("https://storage.googleapis.com", "gcs");
        check_host("https://notamazonaws.com", "generic");
        check_host("https://amazonaws.com.example.org", "generic");
        check_host("http://127.0.0.1:9000", "generic");
        check_host("http://[::1]:9000", "generic");
    }

    #[test]
    fn every_name_is_taken_and_listed() {
        for (name, like) in NAMED {
            assert_eq!(named(name), Some(Quirks { name, ..like }));
            assert!(names().contains(name));
        }
        assert_eq!(
            HOSTS.map(|(_, name)| named(name).map(|it| it.name)),
            HOSTS.map(|(_, name)| Some(name))
        );
        assert_eq!(named("fs"), None);
        assert_eq!(named("AWS"), None);
    }

    #[test]
    fn a_configured_checksum_decides_how_bodies_are_given() {
        let check = |quirks: Quirks, checksum, body, proof| {
            let quirks = quirks.with_checksum(checksum);
            assert_eq!((quirks.body, quirks.proof), (body, proof));
        };
        let (through, filled) = (BodyPolicy::PassThrough, BodyPolicy::Filled);
        check(AWS, None, through, Proof::ByStore);
        check(AWS, Some(Checksum::None), through, Proof::ByStore);
        check(AWS, Some(Checksum::Crc64nvme), filled, Proof::Crc64nvme);
        check(R2, None, filled, Proof::SignedPayload);
        check(R2, Some(Checksum::Crc32), filled, Proof::Crc32);
        check(R2, Some(Checksum::None), through, Proof::Length);
    }
}
