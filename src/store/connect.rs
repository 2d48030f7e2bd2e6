//! From configuration to a destination: every mistake is told with its key, its value and what to write instead.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use aws_config::BehaviorVersion;
use aws_sdk_s3::config::Region;
use aws_sdk_s3::config::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use url::Url;

use crate::model::key::ObjectKey;
use crate::model::object::DestinationName;
use crate::secret::Secret;
use crate::secret::SecretSource;
use crate::store::Address;
use crate::store::Config;
use crate::store::Credentials;
use crate::store::Encryption;
use crate::store::FolderConfig;
use crate::store::Inner;
use crate::store::Place;
use crate::store::R2Config;
use crate::store::S3Config;
use crate::store::Store;
use crate::store::bucket::Bucket;
use crate::store::bucket::BucketParts;
use crate::store::bucket::WriteExtras;
use crate::store::folder::Folder;
use crate::store::folder::FolderRules;
use crate::store::quirks;
use crate::store::quirks::Quirks;

/// The region that a store takes which knows none.
const REGION_WITHOUT_MEANING: &str = "us-east-1";

/// The permissions of a file where the configuration does not say: its owner writes, its group reads.
const MODE: u32 = 0o640;

/// A destination that cannot be made of its configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConnectError {
    /// The key in question: `destination.main.r2.account`.
    pub key: String,
    /// Its value as configured; empty where it is missing or secret.
    pub value: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
    /// Whether it may be right later, without anybody changing it: a folder on a mount that is not there yet.
    pub may_pass: bool,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if !self.value.is_empty() {
            write!(f, " = {:?}", self.value)?;
        }
        write!(f, ": {}; {}", self.problem, self.remedy)
    }
}

/// See [`Store::connect`].
pub(super) async fn connect(
    name: DestinationName,
    config: &Config,
    env: &dyn Fn(&str) -> Option<String>,
    http: SharedHttpClient,
) -> Result<Store, ConnectError> {
    let (quirks, prefix, place) = match (&config.s3, &config.r2, &config.fs) {
        (Some(s3), None, None) => {
            let section = Section::new(&name, "s3", env);
            connect_s3(&section, s3, http).await?
        }
        (None, Some(r2), None) => {
            let section = Section::new(&name, "r2", env);
            connect_r2(&section, r2, http)?
        }
        (None, None, Some(folder)) => {
            let section = Section::new(&name, "fs", env);
            open_folder(&section, folder).await?
        }
        _ => {
            return Err(ConnectError {
                key: format!("destination.{name}"),
                value: String::new(),
                problem: "not exactly one kind of store".to_owned(),
                remedy: format!("write one of [destination.{name}.s3], .r2 and .fs"),
                may_pass: false,
            });
        }
    };
    Ok(Store(Arc::new(Inner {
        address: Address::of(config).expect("one kind, as was just seen"),
        name,
        quirks,
        prefix,
        place,
        computes_checksum: AtomicBool::new(false),
        metrics: OnceLock::new(),
    })))
}

/// What a kind of store is made of: what it can do, what stands before its keys, and the store.
type Made = (Quirks, String, Place);

/// A section of the configuration, for the errors in it.
struct Section<'a> {
    name: &'a DestinationName,
    kind: &'static str,
    env: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Section<'a> {
    fn new(
        name: &'a DestinationName,
        kind: &'static str,
        env: &'a dyn Fn(&str) -> Option<String>,
    ) -> Self {
        Self { name, kind, env }
    }

    fn wrong(&self, key: &str, value: &str, problem: &str, remedy: &str) -> ConnectError {
        ConnectError {
            key: format!("destination.{}.{}.{key}", self.name, self.kind),
            value: value.to_owned(),
            problem: problem.to_owned(),
            remedy: remedy.to_owned(),
            may_pass: false,
        }
    }

    fn secret(&self, key: &str, source: &SecretSource) -> Result<Secret, ConnectError> {
        let secret = source.read(self.env);
        secret.map_err(|error| {
            let problem = error.to_string();
            self.wrong(key, "", &problem, "name a place that holds the secret")
        })
    }

    fn key_pair(
        &self,
        access_key: &SecretSource,
        secret_key: &SecretSource,
    ) -> Result<SharedCredentialsProvider, ConnectError> {
        let access_key = self.secret("access_key", access_key)?;
        let secret_key = self.secret("secret_key", secret_key)?;
        let credentials = aws_credential_types::Credentials::new(
            access_key.expose(),
            secret_key.expose(),
            None,
            None,
            "reelvault",
        );
        Ok(SharedCredentialsProvider::new(credentials))
    }

    fn bucket(&self, bucket: &str) -> Result<String, ConnectError> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if bucket.is_empty() || !bucket.chars().all(is_name) {
            let remedy = "write the bucket's bare name: letters, digits, \".\", \"-\"";
            return Err(self.wrong("bucket", bucket, "not a bucket's name", remedy));
        }
        Ok(bucket.to_owned())
    }

    fn prefix(&self, prefix: &str) -> Result<String, ConnectError> {
        match format!("{prefix}x").parse::<ObjectKey>() {
            Ok(_) => Ok(prefix.to_owned()),
            Err(error) => Err(self.wrong(
                "prefix",
                prefix,
                &error.to_string(),
                "write a relative path such as \"seedance/\"",
            )),
        }
    }
}

async fn connect_s3(
    section: &Section<'_>,
    config: &S3Config,
    http: SharedHttpClient,
) -> Result<Made, ConnectError> {
    let bucket = section.bucket(&config.bucket)?;
    let prefix = section.prefix(&config.prefix)?;
    let quirks = s3_quirks(section, config)?;
    if let Some(endpoint) = &config.endpoint {
        check_endpoint(section, endpoint)?;
    }
    let (credentials, region) = s3_access(section, config, http.clone()).await?;
    let parts = BucketParts {
        destination: section.name.clone(),
        bucket,
        endpoint: config.endpoint.as_ref().map(endpoint_text),
        region,
        path_style: config.path_style.unwrap_or(config.endpoint.is_some()),
        credentials,
        extras: write_extras(section, config)?,
        quirks,
        http,
    };
    Ok((quirks, prefix, Place::Bucket(Box::new(Bucket::new(parts)))))
}

fn connect_r2(
    section: &Section<'_>,
    config: &R2Config,
    http: SharedHttpClient,
) -> Result<Made, ConnectError> {
    let prefix = section.prefix(&config.prefix)?;
    let quirks = Quirks::r2();
    let parts = BucketParts {
        destination: section.name.clone(),
        bucket: section.bucket(&config.bucket)?,
        endpoint: Some(r2_endpoint(section, config)?),
        region: Region::from_static("auto"),
        path_style: true,
        credentials: section.key_pair(&config.access_key, &config.secret_key)?,
        extras: WriteExtras::default(),
        quirks,
        http,
    };
    Ok((quirks, prefix, Place::Bucket(Box::new(Bucket::new(parts)))))
}

async fn open_folder(section: &Section<'_>, config: &FolderConfig) -> Result<Made, ConnectError> {
    let wrong = |problem: &str| {
        let value = config.path.display().to_string();
        let remedy = "write the absolute path of a folder that exists";
        section.wrong("path", &value, problem, remedy)
    };
    if config.path.is_relative() {
        return Err(wrong("a relative path"));
    }
    let mode = match &config.mode {
        Some(text) => parse_mode(section, text)?,
        None => MODE,
    };
    let rules = FolderRules {
        is_synced: config.fsync.unwrap_or(true),
        mode,
        free_min: config.free_min,
    };
    let folder = Folder::open(section.name.clone(), config.path.clone(), rules).await;
    let place = Place::Folder(folder.map_err(|error| ConnectError {
        may_pass: error.kind() != io::ErrorKind::NotADirectory,
        ..wrong(&error.to_string())
    })?);
    Ok((quirks::FOLDER, String::new(), place))
}

/// Reads the permissions of a file that its owner can read: without that right it could not be verified.
pub fn file_mode(text: &str) -> Option<u32> {
    let mode = u32::from_str_radix(text, 8).ok();
    mode.filter(|mode| *mode <= 0o777 && mode & 0o400 != 0)
}

fn parse_mode(section: &Section<'_>, text: &str) -> Result<u32, ConnectError> {
    file_mode(text).ok_or_else(|| {
        let problem = "not the permissions of a file that its owner can read";
        section.wrong("mode", text, problem, "write octal digits such as \"0640\"")
    })
}

fn s3_quirks(section: &Section<'_>, config: &S3Config) -> Result<Quirks, ConnectError> {
    let quirks = match &config.quirks {
        Some(name) => quirks::named(name).ok_or_else(|| {
            let remedy = format!("write one of {}", quirks::names());
            section.wrong("quirks", name, "an unknown kind of store", &remedy)
        })?,
        None => quirks::at(config.endpoint.as_ref()),
    };
    Ok(quirks.with_checksum(config.checksum))
}

fn check_endpoint(section: &Section<'_>, endpoint: &Url) -> Result<(), ConnectError> {
    let is_plain = matches!(endpoint.scheme(), "http" | "https")
        && endpoint.has_host()
        && endpoint.username().is_empty()
        && endpoint.password().is_none()
        && endpoint.query().is_none()
        && endpoint.fragment().is_none();
    if is_plain {
        Ok(())
    } else {
        // The value is not shown: it may hold a password.
        let remedy = "write scheme, host and port, such as \"https://minio.example.com:9000\"";
        Err(section.wrong("endpoint", "", "not a bare http or https address", remedy))
    }
}

/// The endpoint as the SDK takes it, which appends a bucket's name to a path without a slash between them.
fn endpoint_text(endpoint: &Url) -> String {
    let text = endpoint.as_str().trim_end_matches('/');
    if endpoint.path().trim_matches('/').is_empty() {
        text.to_owned()
    } else {
        format!("{text}/")
    }
}

/// The keys and the region: static ones, or those of the default chain.
async fn s3_access(
    section: &Section<'_>,
    config: &S3Config,
    http: SharedHttpClient,
) -> Result<(SharedCredentialsProvider, Region), ConnectError> {
    let credentials = s3_key_pair(section, config)?;
    let region = config.region.clone().or_else(|| {
        let elsewhere = config.endpoint.is_some();
        elsewhere.then(|| REGION_WITHOUT_MEANING.to_owned())
    });
    let region = region.map(Region::new);
    if let (Some(credentials), Some(region)) = (&credentials, &region) {
        return Ok((credentials.clone(), region.clone()));
    }
    let chain = Box::pin(load_chain(config.profile.as_deref(), region, http)).await;
    let region = chain.region().cloned().ok_or_else(|| {
        let remedy = "write the bucket's region, or set AWS_REGION";
        section.wrong("region", "", "no region is known", remedy)
    })?;
    let credentials = credentials.or_else(|| chain.credentials_provider());
    let credentials = credentials.ok_or_else(|| {
        let remedy = "give access_key and secret_key";
        section.wrong(
            "credentials",
            "default",
            "there is no default chain",
            remedy,
        )
    })?;
    Ok((credentials, region))
}

async fn load_chain(
    profile: Option<&str>,
    region: Option<Region>,
    http: SharedHttpClient,
) -> aws_config::SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http);
    if let Some(profile) = profile {
        loader = loader.profile_name(profile);
    }
    if let Some(region) = region {
        loader = loader.region(region);
    }
    loader.load().await
}

/// The static keys; `None` where the default chain is asked.
fn s3_key_pair(
    section: &Section<'_>,
    config: &S3Config,
) -> Result<Option<SharedCredentialsProvider>, ConnectError> {
    match (&config.access_key, &config.secret_key, config.credentials) {
        (Some(access_key), Some(secret_key), Credentials::Static | Credentials::Default) => {
            section.key_pair(access_key, secret_key).map(Some)
        }
        (None, None, Credentials::Default) => Ok(None),
        (access_key, _, Credentials::Static | Credentials::Default) => {
            let missing = if access_key.is_none() {
                "access_key"
            } else {
                "secret_key"
            };
            let remedy = "give access_key and secret_key, or neither for the default chain";
            Err(section.wrong(missing, "", "half of a pair of keys is missing", remedy))
        }
    }
}

fn write_extras(section: &Section<'_>, config: &S3Config) -> Result<WriteExtras, ConnectError> {
    if let Some(Encryption::Kms(key)) = &config.encryption
        && key.is_empty()
    {
        let remedy = "write { kms = \"alias/...\" }";
        return Err(section.wrong("encryption", "", "a KMS key without a name", remedy));
    }
    let mut tags = url::form_urlencoded::Serializer::new(String::new());
    tags.extend_pairs(&config.tags);
    Ok(WriteExtras {
        storage_class: config.storage_class.as_deref().map(Into::into),
        encryption: config.encryption.clone(),
        tags: Some(tags.finish()).filter(|tags| !tags.is_empty()),
    })
}

fn r2_endpoint(section: &Section<'_>, config: &R2Config) -> Result<String, ConnectError> {
    let account = &config.account;
    if account.len() != 32 || !account.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let remedy = "write the 32 hexadecimal digits that the dashboard shows as account ID";
        return Err(section.wrong("account", account, "not an account ID", remedy));
    }
    match &config.jurisdiction {
        None => Ok(format!("https://{account}.r2.cloudflarestorage.com")),
        Some(place) if !place.is_empty() && place.bytes().all(|byte| byte.is_ascii_lowercase()) => {
            Ok(format!(
                "https://{account}.{place}.r2.cloudflarestorage.com"
            ))
        }
        Some(place) => {
            let remedy = "write \"eu\" or \"fedramp\", or nothing";
            Err(section.wrong("jurisdiction", place, "not a jurisdiction", remedy))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::units::Span;

    use super::*;
    use crate::http::roots::Roots;

    fn env(name: &str) -> Option<String> {
        name.starts_with("KEY").then(|| format!("value-of-{name}"))
    }

    async fn connect_toml(section: &str) -> Result<Store, ConnectError> {
        let config: Config = toml::from_str(section).unwrap();
        let http = Store::http_client(Span::from_secs(1), &Roots::load(&[]).unwrap()).unwrap();
        Store::connect("main".parse().unwrap(), &config, &env, http).await
    }

    const KEYS: &str = "access_key = { env = 'KEY_A' }\nsecret_key = { env = 'KEY_S' }\n";

    #[track_caller]
    fn check_refused(connected: Result<Store, ConnectError>, key: &str, value: &str) {
        let error = connected.expect_err(key);
        assert_eq!((error.key.as_str(), error.value.as_str()), (key, value));
        let text = error.to_string();
        assert!(text.contains(&error.remedy) && text.contains(value) && !text.contains("value-of"));
    }

    #[tokio::test]
    async fn exactly_one_kind() {
        check_refused(connect_toml("").await, "destination.main", "");
        let two = "[fs]\npath = '/tmp'\n[r2]\naccount = ''\nbucket = ''\n".to_owned() + KEYS;
        check_refused(connect_toml(&two).await, "destination.main", "");
    }

    #[tokio::test]
    async fn r2_stands_at_its_accounts_address() {
        let account = "0123456789abcdef0123456789ABCDEF";
        let toml = |account: &str, more: &str| {
            format!("[r2]\naccount = '{account}'\nbucket = 'films'\n{more}{KEYS}")
        };
        let store = connect_toml(&toml(account, "prefix = 'a/'\n"))
            .await
            .unwrap();
        assert_eq!(store.quirks().name, "r2");
        assert_eq!(store.bucket(), Some("films"));
        let key = store.prefixed("b/c.mp4".parse().unwrap()).unwrap();
        assert_eq!(store.locate(&key), "r2://films/a/b/c.mp4");

        let key = "destination.main.r2.account";
        for bad in ["", "abc", "0123456789abcdef0123456789abcdeg"] {
            check_refused(connect_toml(&toml(bad, "")).await, key, bad);
        }
        let key = "destination.main.r2.jurisdiction";
        let elsewhere = connect_toml(&toml(account, "jurisdiction = 'e/u'\n")).await;
        check_refused(elsewhere, key, "e/u");
        let name = "main".parse().unwrap();
        let section = Section::new(&name, "r2", &env);
        let config: Config = toml::from_str(&toml(account, "jurisdiction = 'eu'\n")).unwrap();
        assert_eq!(
            r2_endpoint(&section, &config.r2.unwrap()).unwrap(),
            format!("https://{account}.eu.r2.cloudflarestorage.com")
        );
    }

    #[tokio::test]
    async fn s3_mistakes_are_told_with_their_key() {
        let base = "[s3]\nendpoint = 'http://127.0.0.1:9'\n";
        let check = async |more: &str, key: &str, value: &str| {
            let connected = connect_toml(&format!("{base}{more}")).await;
            check_refused(connected, &format!("destination.main.s3.{key}"), value);
        };
        check("bucket = ''", "bucket", "").await;
        check("bucket = 's3://films'", "bucket", "s3://films").await;
        let static_keys = "bucket = 'films'\ncredentials = 'static'";
        check(static_keys, "access_key", "").await;
        let half = "bucket = 'films'\naccess_key = { env = 'KEY' }";
        check(half, "secret_key", "").await;
        let unset = "bucket = 'films'\naccess_key = { env = 'NO' }\nsecret_key = { env = 'KEY' }";
        check(unset, "access_key", "").await;
        let good = format!("bucket = 'films'\n{KEYS}");
        check(&format!("{good}quirks = 'fs'"), "quirks", "fs").await;
        check(&format!("{good}prefix = '/a'"), "prefix", "/a").await;
        check(
            &format!("{good}encryption = {{ kms = '' }}"),
            "encryption",
            "",
        )
        .await;
        let named = format!("[s3]\nendpoint = 'http://u:p@h/'\n{good}");
        check_refused(
            connect_toml(&named).await,
            "destination.main.s3.endpoint",
            "",
        );

        let store = connect_toml(&format!("{base}{good}")).await.unwrap();
        assert_eq!(store.quirks().name, "generic");
        let key = "a.mp4".parse().unwrap();
        assert_eq!(store.locate(&key), "s3://films/a.mp4");
        assert!(!format!("{store:?}").contains("value-of-KEY_S"));
        // The default chain is not asked for anything yet.
        let chain = connect_toml(&format!("{base}bucket = 'films'")).await;
        assert!(chain.is_ok());
    }

    #[tokio::test]
    async fn folders_exist_and_modes_are_octal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display().to_string();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let check = async |path: &str, more: &str, key: &str, value: &str| {
            let connected = connect_toml(&format!("[fs]\npath = '{path}'\n{more}")).await;
            check_refused(connected, &format!("destination.main.fs.{key}"), value);
        };
        for bad in [
            "relative",
            "/nonexistent/folder",
            &file.display().to_string(),
        ] {
            check(bad, "", "path", bad).await;
        }
        for bad in ["", "640x", "0o640", "1777", "0200", "-1"] {
            check(&path, &format!("mode = '{bad}'"), "mode", bad).await;
        }
        let store = connect_toml(&format!("[fs]\npath = '{path}'"))
            .await
            .unwrap();
        assert_eq!(store.bucket(), None);
        let located = store.locate(&"a/b.mp4".parse().unwrap());
        assert!(located.starts_with("file:///") && located.ends_with("/a/b.mp4"));
    }
}
