//! What is wrong with destinations: their kind, their bucket or folder, where their keys are.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::config::check::Check;
use crate::config::node::Path;
use crate::config::problem::At;
use crate::config::salvage::SECRET_FORMS;
use crate::store;

impl Check<'_> {
    pub(super) fn destinations(&mut self) {
        if self.names("destination").is_empty() {
            let note =
                "write a [destination.NAME.s3], [destination.NAME.r2] or [destination.NAME.fs]";
            let path = Path::keys(&["destination"]);
            self.wrong(
                At::Table,
                path,
                "none, so there is nowhere to archive to",
                note,
            );
        }
        for (name, destination) in &self.config.destination {
            let path = Path::keys(&["destination", name.as_str()]);
            let given = [
                ("s3", destination.s3.is_some()),
                ("r2", destination.r2.is_some()),
                ("fs", destination.fs.is_some()),
            ];
            let kinds: Vec<&str> = given
                .iter()
                .filter(|(_, is_given)| *is_given)
                .map(|(kind, _)| *kind)
                .collect();
            if kinds.len() != 1 {
                let what = if kinds.is_empty() {
                    "no kind of store".to_owned()
                } else {
                    format!("several kinds of store: {}", kinds.join(", "))
                };
                let note = format!("write exactly one of [{path}.s3], [{path}.r2], [{path}.fs]");
                self.wrong(At::Table, path.clone(), what, note);
            }
            self.destination(&path, destination);
        }
        self.places();
    }

    /// Two names for one place would be two objects with one key, of which the second could never be written.
    fn places(&mut self) {
        let mut known: BTreeMap<String, &str> = BTreeMap::new();
        for (name, destination) in &self.config.destination {
            let Some((kind, place)) = place(destination) else {
                continue;
            };
            if let Some(other) = known.get(&place) {
                let what = format!("the same place as [destination.{other}]");
                let note = "give them different buckets, prefixes or folders, or keep one of them";
                let path = Path::keys(&["destination", name.as_str(), kind]);
                self.wrong(At::Table, path, what, note);
            } else {
                known.insert(place, name.as_str());
            }
        }
    }

    fn destination(&mut self, path: &Path, destination: &store::Config) {
        if let Some(s3) = &destination.s3 {
            self.s3(&path.key("s3"), s3);
        }
        if let Some(r2) = &destination.r2 {
            let path = path.key("r2");
            self.bucket(path.key("bucket"), &r2.bucket, is_strict_bucket);
            let is_account =
                r2.account.len() == 32 && r2.account.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !is_account {
                let what = "not the ID of an account";
                let note = "write the 32 hexadecimal digits that the dashboard shows";
                self.wrong(At::Value, path.key("account"), what, note);
            }
            self.secret(path.key("access_key"), &r2.access_key);
            self.secret(path.key("secret_key"), &r2.secret_key);
        }
        let folder = destination
            .fs
            .as_ref()
            .filter(|folder| folder.path.is_relative());
        if let Some(folder) = folder {
            self.relative(path.key("fs").key("path"), &folder.path);
        }
        let mode = destination.fs.as_ref().and_then(|it| it.mode.as_deref());
        if let Some(mode) = mode.filter(|mode| store::file_mode(mode).is_none()) {
            let what = format!("{mode:?} is not the permissions of a file that its owner can read");
            let note = "write octal digits such as \"0640\"";
            self.wrong(At::Value, path.key("fs").key("mode"), what, note);
        }
    }

    fn relative(&mut self, path: Path, folder: &std::path::Path) {
        self.wrong(
            At::Value,
            path,
            format!("{:?} is relative", folder.display().to_string()),
            "write an absolute path",
        );
    }

    fn s3(&mut self, path: &Path, s3: &store::S3Config) {
        let is_bucket = if s3.endpoint.is_some() {
            is_bucket
        } else {
            is_strict_bucket
        };
        self.bucket(path.key("bucket"), &s3.bucket, is_bucket);
        let keys = [
            ("access_key", &s3.access_key),
            ("secret_key", &s3.secret_key),
        ];
        for (key, source) in keys {
            match (s3.credentials, source) {
                (store::Credentials::Static, None) => {
                    let what = "missing, while `credentials` is \"static\"";
                    self.wrong(At::Missing, path.key(key), what, SECRET_FORMS);
                }
                (store::Credentials::Default, Some(_)) => {
                    let what = "without effect, while `credentials` is \"default\"";
                    let note = "write credentials = \"static\" beside it, or leave it out";
                    self.wrong(At::Key, path.key(key), what, note);
                }
                (store::Credentials::Static, Some(source)) => self.secret(path.key(key), source),
                (store::Credentials::Default, None) => {}
            }
        }
        if let Some(url) = &s3.endpoint {
            self.address(path.key("endpoint"), url);
        }
    }

    fn bucket(&mut self, path: Path, bucket: &str, is_name: fn(&str) -> bool) {
        if !is_name(bucket) {
            let what = format!("{bucket:?} is not the name of a bucket");
            let note =
                "3 to 63 lower-case letters, digits, \"-\" and \".\", the first and last no sign";
            self.wrong(At::Value, path, what, note);
        }
    }
}

/// The table that says where a destination is, and what two of them share that are one place.
fn place(destination: &store::Config) -> Option<(&'static str, String)> {
    match (&destination.s3, &destination.r2, &destination.fs) {
        (Some(s3), None, None) => {
            let endpoint = s3.endpoint.as_ref().map_or("", url::Url::as_str);
            let place = format!("s3 {endpoint:?} {:?} {:?}", s3.bucket, s3.prefix);
            Some(("s3", place))
        }
        (None, Some(r2), None) => {
            let account = r2.account.to_ascii_lowercase();
            let place = format!(
                "r2 {account:?} {:?} {:?} {:?}",
                r2.jurisdiction, r2.bucket, r2.prefix
            );
            Some(("r2", place))
        }
        (None, None, Some(folder)) => {
            // Spelt anew, so that "/srv/video" and "/srv//video/" are one.
            let path: PathBuf = folder.path.components().collect();
            Some(("fs", format!("fs {}", path.display())))
        }
        _ => None,
    }
}

/// The names that AWS and R2 give out.
fn is_strict_bucket(name: &str) -> bool {
    is_bucket(name) && !name.contains(|c: char| c.is_ascii_uppercase() || c == '_')
}

/// The names that any store is known to give out.
fn is_bucket(name: &str) -> bool {
    let is_sign = |c: char| matches!(c, '-' | '.' | '_');
    (3..=63).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || is_sign(c))
        && !name.starts_with(is_sign)
        && !name.ends_with(is_sign)
}
