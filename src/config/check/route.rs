//! What is wrong with routes: names that nobody has, patterns that are none, keys that two providers could share.

use std::collections::BTreeSet;

use globset::Glob;
use globset::GlobSetBuilder;

use crate::config::check::Check;
use crate::config::node::Node;
use crate::config::node::Path;
use crate::config::problem::At;
use crate::config::problem::nearest;
use crate::model::key::KeyTemplate;
use crate::model::object::DestinationName;
use crate::model::task::FETCH_PROVIDER;
use crate::model::task::ProviderName;
use crate::watch::RouteConfig;

impl Check<'_> {
    pub(super) fn routes(&mut self) {
        let mut names = BTreeSet::new();
        let routes = written(self.tree, self.failed, "route").zip(&self.config.route);
        for (path, route) in routes {
            if !route.name.is_empty() && !names.insert(route.name.as_str()) {
                let what = format!("another route is called {:?} too", route.name);
                self.wrong(
                    At::Value,
                    path.key("name"),
                    what,
                    "give each route a name of its own",
                );
            }
            self.route(&path, route);
        }
    }

    fn route(&mut self, path: &Path, route: &RouteConfig) {
        let to = path.key("to");
        if route.to.is_empty() && !self.has_failed(&to) {
            let note = "name at least one destination";
            self.wrong(
                At::Value,
                to.clone(),
                "empty, so nothing would be archived",
                note,
            );
        }
        let destinations = self.names("destination");
        let mut earlier = BTreeSet::new();
        for (index, name) in self.elements(&to, route.to.iter().map(DestinationName::as_str)) {
            self.known(to.index(index), name, "destination", &destinations);
            // The manifest has one object for an asset and a destination, and takes no route that wants two.
            if !earlier.insert(name) {
                let what = format!("{name:?} is in the list already");
                let note = "a destination gets one copy: name each once";
                self.wrong(At::Value, to.index(index), what, note);
            }
        }
        let mut providers = self.names("provider");
        providers.push(FETCH_PROVIDER);
        let asked = route.provider.iter().flatten().map(ProviderName::as_str);
        for (index, name) in self.elements(&path.key("provider"), asked) {
            self.known(
                path.key("provider").index(index),
                name,
                "provider",
                &providers,
            );
        }
        self.models(&path.key("model"), route);
        let lists = [
            ("provider", route.provider.as_ref().map(Vec::is_empty)),
            ("model", route.model.as_ref().map(Vec::is_empty)),
        ];
        for (key, _) in lists.iter().filter(|(_, is_empty)| *is_empty == Some(true)) {
            // Emptied by mistakes in it, it is not empty as written.
            if matches!(self.tree.get(&path.key(key)), Some(Node::List(list)) if list.is_empty()) {
                let note = "leave it out to match all";
                self.wrong(At::Value, path.key(key), "empty, so no task matches", note);
            }
        }
    }

    fn models(&mut self, path: &Path, route: &RouteConfig) {
        let mut globs = GlobSetBuilder::new();
        let models = route.model.iter().flatten().map(String::as_str);
        for (index, pattern) in self.elements(path, models) {
            match Glob::new(pattern) {
                Ok(glob) => {
                    globs.add(glob);
                }
                Err(error) => {
                    let what = format!("{pattern:?} is not a pattern: {}", error.kind());
                    let note = "* stands for anything, ? for one character, [ab] for one of these";
                    self.wrong(At::Value, path.index(index), what, note);
                }
            }
        }
        if let Err(error) = globs.build() {
            let what = format!("patterns that cannot be used together: {}", error.kind());
            self.wrong(At::Value, path.clone(), what, "write fewer or shorter ones");
        }
    }

    /// The elements of a list that were read, with the indices that they were written at.
    fn elements<'b>(
        &self,
        path: &Path,
        read: impl Iterator<Item = &'b str>,
    ) -> Vec<(usize, &'b str)> {
        let indices = (0..).filter(|index| !self.failed.contains(&path.index(*index)));
        indices.zip(read).collect()
    }

    fn known(&mut self, path: Path, name: &str, section: &str, known: &[&str]) {
        if !known.contains(&name) {
            let note = match nearest(name, known.iter().copied()) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => format!(
                    "name one of: {}; or add a [{section}.{name}]",
                    known.join(", ")
                ),
            };
            self.wrong(
                At::Value,
                path,
                format!("no {section} is called {name:?}"),
                note,
            );
        }
    }

    /// As soon as there are several providers, their task IDs may be alike.
    pub(super) fn keys(&mut self) {
        if self.providers_named().len() < 2 {
            return;
        }
        let config = self.config;
        let default = (Path::keys(&["key"]), Some(&config.key));
        let routes = written(self.tree, self.failed, "route").zip(&config.route);
        let routes = routes.map(|(path, route)| (path.key("key"), route.key.as_ref()));
        for (path, key) in std::iter::once(default).chain(routes) {
            if key.is_some_and(|key: &KeyTemplate| !key.as_str().contains("{provider}")) {
                let note = "put {provider} into it";
                self.wrong(At::Value, path, "two providers could share a key", note);
            }
        }
    }
}

/// The paths of those tables of a list that were read, as written.
pub(super) fn written(tree: &Node, failed: &[Path], list: &str) -> impl Iterator<Item = Path> {
    let list = Path::keys(&[list]);
    let count = match tree.get(&list) {
        Some(Node::List(tables)) => tables.len(),
        _ => 0,
    };
    let paths = (0..count).map(move |index| list.index(index));
    paths.filter(|path| !failed.contains(path))
}
