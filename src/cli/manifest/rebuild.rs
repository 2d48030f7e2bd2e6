//! `reelvault manifest rebuild`: writes down anew what a bucket holds of ours, where the manifest was lost.
//!
//! Each object says in its metadata whose it is, and HEAD tells the rest. What no object knows does not come back: labels,
//! links, what the provider said, pictures' sizes, and SHA-256s unless the bytes had to be read.

use std::path::Path;

use futures::StreamExt as _;
use futures::TryStreamExt as _;
use futures::stream;
use serde::Serialize;
use url::Url;

use crate::backoff;
use crate::chance::Dice;
use crate::cli::copies;
use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::cli::open;
use crate::cli::say::say;
use crate::cli::say::talk;
use crate::cli::tasks::json;
use crate::clock::Timestamp;
use crate::daemon::wiring;
use crate::manifest::Manifest;
use crate::manifest::row::rebuild::FoundObject;
use crate::manifest::row::rebuild::Rebuilt;
use crate::model::asset::AssetRole;
use crate::model::asset::MediaType;
use crate::model::digest::Crc64;
use crate::model::digest::Crc64Digester;
use crate::model::digest::Sha256Digest;
use crate::model::digest::Sha256Digester;
use crate::model::key::KeyTemplate;
use crate::model::key::ObjectKey;
use crate::model::object::DestinationName;
use crate::model::object::ETag;
use crate::model::object::Verified;
use crate::model::task::TaskKey;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::StoreErrorKind;

use super::LOOKS;
use super::TRIES;

/// The content type of an object that has none.
const UNTYPED: &str = "application/octet-stream";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The destination whose objects are written down
    #[arg(long, value_name = "DESTINATION")]
    from: DestinationName,
    /// Only say what is there
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// One JSON document an object that is not written down, the numbers last
    #[arg(long)]
    json: bool,
}

/// All of it in numbers.
#[derive(Debug, Default, Serialize)]
struct Summary {
    objects: u64,
    written: u64,
    known: u64,
    open: u64,
    second: u64,
    foreign: u64,
    unread: u64,
}

/// An object of ours that is not written down.
#[derive(Debug, Serialize)]
struct Left<'a> {
    verdict: &'a str,
    url: String,
    what: String,
}

/// Where objects are looked for.
struct Source {
    store: Store,
    destination: DestinationName,
    key_template: KeyTemplate,
    dice: Dice,
    is_json: bool,
}

pub(super) async fn rebuild(
    config: Option<&Path>,
    arguments: &Arguments,
) -> Result<Exit, Complaint> {
    let config = open::load(config)?.config;
    copies::check_destination(&config, Some(&arguments.from))?;
    let settings = config.destination.get(&arguments.from);
    let settings = settings.expect("it was checked to be configured");
    let seams = open::seams(&config)?;
    let source = Source {
        store: wiring::connect::store(&arguments.from, settings, &seams).await?,
        destination: arguments.from.clone(),
        key_template: config.key.clone(),
        dice: seams.dice.clone(),
        is_json: arguments.json,
    };
    if source.store.bucket().is_none() {
        let what = format!(
            "{} is a folder, whose files do not say whose they are",
            arguments.from
        );
        return Err(Complaint::new(Exit::Usage, what)
            .hint("a manifest is rebuilt from a bucket; of a folder, restore the latest backup of the manifest"));
    }
    let manifest = if arguments.dry_run {
        None
    } else {
        Some(open::write_manifest(&config).await?)
    };
    let mut summary = Summary::default();
    let done = source.go_through(manifest.as_ref(), &mut summary).await;
    if let Some(manifest) = &manifest {
        manifest.close().await;
    }
    done?;
    summary.tell(arguments)
}

impl Source {
    /// Looks at every object, and writes down those of ours page by page: whoever is interrupted begins again, and loses
    /// nothing by it.
    async fn go_through(
        &self,
        manifest: Option<&Manifest>,
        summary: &mut Summary,
    ) -> Result<(), Complaint> {
        let mut next = None;
        loop {
            let page = self.patiently(|| self.store.keys(next.as_deref())).await;
            let page = page.map_err(|error| refused(&error))?;
            summary.objects += page.others + count(page.keys.len());
            summary.foreign += page.others;
            let looks = stream::iter(page.keys).map(async |key| (self.look(&key).await, key));
            let looked: Vec<_> = looks.buffered(LOOKS).collect().await;
            let mut found = Vec::new();
            for (outcome, key) in looked {
                match outcome {
                    Ok(Some(object)) => found.push(object),
                    Ok(None) => summary.foreign += 1,
                    Err(why) => {
                        summary.unread += 1;
                        self.tell("unread", &key, why)?;
                    }
                }
            }
            match manifest {
                Some(manifest) => self.write(manifest, found, summary).await?,
                None => summary.written += count(found.len()),
            }
            next = page.next;
            if next.is_none() {
                return Ok(());
            }
            talk!("{} objects", summary.objects);
        }
    }

    async fn write(
        &self,
        manifest: &Manifest,
        found: Vec<FoundObject>,
        summary: &mut Summary,
    ) -> Result<(), Complaint> {
        let rebuilt = manifest.rebuild(found.clone()).await?;
        for (object, rebuilt) in found.iter().zip(rebuilt) {
            let TaskKey { provider, id } = &object.task;
            let whose = format!("{provider} {id}, asset {}", object.index);
            match rebuilt {
                Rebuilt::New => summary.written += 1,
                Rebuilt::Known => summary.known += 1,
                Rebuilt::Open => {
                    summary.open += 1;
                    let what =
                        format!("{whose}: the manifest has it, and the daemon still works on it");
                    self.tell("open", &object.key, what)?;
                }
                Rebuilt::Second => {
                    summary.second += 1;
                    let what = format!("{whose}: the manifest has another object of it here");
                    self.tell("second", &object.key, what)?;
                }
            }
        }
        Ok(())
    }

    /// What stands at a key, if it is ours. Where the store tells no checksum of it, its bytes are read.
    async fn look(&self, key: &ObjectKey) -> Result<Option<FoundObject>, String> {
        let described = self.patiently(|| self.store.describe(key)).await;
        let Some(described) = described.map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let (standing, identity) = (described.standing, described.identity);
        let (crc64nvme, sha256, verified) = match standing.crc64nvme {
            Some(crc64nvme) => (crc64nvme, None, Verified::Head),
            None => {
                let read = self.patiently(|| self.read(key)).await;
                let (length, crc64nvme, sha256) = read.map_err(|error| error.to_string())?;
                if length != standing.length {
                    let told = standing.length;
                    return Err(format!("{length} B came of the {told} B that HEAD tells"));
                }
                (crc64nvme, Some(sha256), Verified::Read)
            }
        };
        let content_type = described.content_type;
        let content_type = content_type.unwrap_or_else(|| UNTYPED.to_owned());
        let url = Url::parse(&self.store.locate(key)).map_err(|error| error.to_string())?;
        Ok(Some(FoundObject {
            task: TaskKey {
                provider: identity.provider,
                id: identity.task_id,
            },
            index: identity.index,
            role: role(&content_type),
            url,
            destination: self.destination.clone(),
            key_template: self.key_template.clone(),
            key: key.clone(),
            nonce: identity.nonce,
            media: MediaType {
                content_type,
                extension: extension(key),
            },
            size: standing.length,
            crc64nvme,
            sha256,
            parts: standing.etag.as_ref().map_or(0, parts),
            etag: standing.etag,
            version_id: standing.version_id,
            verified,
            archived_at: standing.last_modified.unwrap_or(Timestamp::EPOCH),
        }))
    }

    /// The length and the digests of what is there.
    async fn read(&self, key: &ObjectKey) -> Result<(u64, Crc64, Sha256Digest), StoreError> {
        let mut body = self.store.read(key).await?;
        let (mut length, mut crc64nvme, mut sha256) =
            (0, Crc64Digester::new(), Sha256Digester::new());
        while let Some(frame) = body.try_next().await? {
            length += count(frame.len());
            crc64nvme.update(&frame);
            sha256.update(&frame);
        }
        Ok((length, crc64nvme.value(), sha256.value()))
    }

    /// Asks again where a moment later may bring an answer: nobody comes back to it.
    async fn patiently<T>(
        &self,
        ask: impl AsyncFn() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut tries = 1;
        loop {
            match ask().await {
                Err(error) if error.kind == StoreErrorKind::Transient && tries < TRIES => {
                    let wait = backoff::delay(tries, None, &self.dice);
                    tokio::time::sleep(wait.as_duration()).await;
                    tries += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// Tells of an object that was not written down.
    fn tell(&self, verdict: &str, key: &ObjectKey, what: String) -> Result<(), Complaint> {
        let url = self.store.locate(key);
        if self.is_json {
            return say!("{}", json(&Left { verdict, url, what })?);
        }
        say!("{verdict}  {url}: {what}")
    }
}

impl Summary {
    fn tell(&self, arguments: &Arguments) -> Result<Exit, Complaint> {
        let Summary {
            objects,
            written,
            known,
            open,
            second,
            foreign,
            unread,
        } = self;
        if arguments.json {
            say!("{}", json(self)?)?;
        } else if arguments.dry_run {
            say!("{objects} objects: {written} ours, {foreign} not ours, {unread} unread")?;
        } else {
            say!(
                "{objects} objects: {written} written down, {known} known, {open} open, {second} second, {foreign} not ours, {unread} unread"
            )?;
        }
        Ok(if *unread > 0 {
            Exit::DoneInPart
        } else {
            Exit::Done
        })
    }
}

/// What is said where the bucket cannot be listed.
fn refused(error: &StoreError) -> Complaint {
    let exit = if error.kind == StoreErrorKind::Blocked {
        Exit::Refused
    } else {
        Exit::Failed
    };
    Complaint::new(exit, error.to_string())
        .hint("the key needs s3:ListBucket and s3:GetObject; run the same command again, it goes on with what is lacking")
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// What kind of file an asset is, by its content type.
fn role(content_type: &str) -> AssetRole {
    match content_type.split_once('/') {
        Some(("video", _)) => AssetRole::Video,
        Some(("image", _)) => AssetRole::Image,
        Some(("audio", _)) => AssetRole::Audio,
        Some(_) | None => AssetRole::File,
    }
}

/// What stands behind the last dot of a key's last segment.
fn extension(key: &ObjectKey) -> String {
    let name = key.as_str().rsplit('/').next().unwrap_or_default();
    let (_, extension) = name.rsplit_once('.').unwrap_or_default();
    extension.to_owned()
}

/// In how many parts an object was written, as its tag tells.
fn parts(etag: &ETag) -> u32 {
    let tag = etag.0.trim_matches('"').rsplit_once('-');
    tag.and_then(|(_, parts)| parts.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_tells_what_it_is() {
        let check = |key: &str, extension_: &str| {
            assert_eq!(extension(&key.parse().unwrap()), extension_, "{key}");
        };
        check("a/b.c/00.mp4", "mp4");
        check("a.b/00", "");
        check("00.tar.gz", "gz");
        let check = |tag: &str, parts_: u32| assert_eq!(parts(&ETag(tag.to_owned())), parts_);
        check("\"d41d8cd98f00b204e9800998ecf8427e\"", 0);
        check("\"d41d8cd98f00b204e9800998ecf8427e-12\"", 12);
        check("a-b", 0);
        assert_eq!(role("video/mp4"), AssetRole::Video);
        assert_eq!(role("model/gltf-binary"), AssetRole::File);
    }
}
