//! By which ways tasks become known: the doors, the spool, and whose tasks are taken.

use super::Seams;
use super::connect::task_apis;
use crate::config::Config;
use crate::intake::api::Doors;
use crate::intake::line::Account;
use crate::intake::line::Accounts;
use crate::intake::spool::Spool;
use crate::manifest::Manifest;
use crate::manifest::row::ObjectPlan;
use crate::provider;
use crate::work::wake::Wake;

/// By which people and programs announce tasks and links.
pub(super) fn doors(
    config: &Config,
    manifest: &Manifest,
    seams: &Seams,
    [watch, archive]: [&Wake; 2],
) -> Doors {
    Doors {
        manifest: manifest.clone(),
        accounts: accounts(config),
        objects: bare_link_objects(config),
        ttl: config.deadline.default,
        clock: seams.clock.clone(),
        watch: watch.clone(),
        archive: archive.clone(),
    }
}

pub(super) fn spool(config: &Config, manifest: &Manifest, seams: &Seams) -> Option<Spool> {
    let path = config.spool.path.clone();
    let is_wanted = !path.as_os_str().is_empty();
    is_wanted.then(|| {
        Spool::new(
            path,
            accounts(config),
            manifest.clone(),
            seams.clock.clone(),
        )
    })
}

/// Whose tasks can be announced. Where a description cannot be read, any task ID is taken: the daemon and `check` tell of
/// it, and a task that is announced now is not lost for that.
pub fn accounts(config: &Config) -> Accounts {
    Accounts::new(task_apis(config).map(|(name, settings)| {
        let described = provider::describe(name, settings).ok();
        let told = described.as_ref().and_then(|it| it.results.ttl);
        let account = Account {
            ttl: settings
                .output_ttl
                .or(told)
                .unwrap_or(config.deadline.default),
            id: described.map(|it| it.id),
        };
        (name.clone(), account)
    }))
}

/// Bare links go to every destination, under the key of the root.
fn bare_link_objects(config: &Config) -> Vec<ObjectPlan> {
    let names = config.destination.keys();
    names
        .map(|name| ObjectPlan {
            destination: name.clone(),
            key_template: config.key.clone(),
        })
        .collect()
}
