//! What is wrong with `[spool]`: a folder whose files are moved away must hold nobody else's.

use std::path::Component;
use std::path::PathBuf;

use crate::config::check::Check;
use crate::manifest::Manifest;

impl Check<'_> {
    pub(super) fn spool(&mut self) {
        let spool = &self.config.spool.path;
        if spool.as_os_str().is_empty() {
            return;
        }
        if !spool.is_absolute() {
            let what = format!("{} is not an absolute path", spool.display());
            let note = "write the whole path, or \"\" for no spool";
            self.value(&["spool", "path"], what, note);
            return;
        }
        let spool = resolved(spool);
        let manifest = Manifest::path(&self.config.manifest);
        let socket = Some(&self.config.server.socket).filter(|it| !it.as_os_str().is_empty());
        let mut taken = Vec::new();
        for (what, file) in [("the manifest", manifest.as_ref()), ("the socket", socket)] {
            let folder = file.and_then(|file| file.parent()).map(resolved);
            // A spool of its own below that folder is the usual place.
            if folder.is_some_and(|folder| folder.starts_with(&spool)) {
                taken.push(what.to_owned());
            }
        }
        for (name, destination) in &self.config.destination {
            let folder = destination.fs.as_ref().map(|it| resolved(&it.path));
            if folder.is_some_and(|it| it.starts_with(&spool) || spool.starts_with(&it)) {
                taken.push(format!("destination {name}"));
            }
        }
        if let Some(what) = taken.first() {
            let what = format!("{} is not a folder apart from {what}", spool.display());
            let note =
                "every file that lies in the spool is read and moved: give it a folder of its own";
            self.value(&["spool", "path"], what, note);
        }
    }
}

/// The path as the system knows it: links are followed as far as it is there, and what follows is spelt anew.
fn resolved(path: &std::path::Path) -> PathBuf {
    let known = path.ancestors().find_map(|ancestor| {
        let known = ancestor.canonicalize().ok()?;
        Some((known, path.strip_prefix(ancestor).ok()?))
    });
    let (mut resolved, rest) = known.unwrap_or_else(|| (PathBuf::new(), path));
    for component in rest.components() {
        match component {
            Component::ParentDir => {
                resolved.pop();
            }
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => {
                resolved.push(component);
            }
        }
    }
    resolved
}
