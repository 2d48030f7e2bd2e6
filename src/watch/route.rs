//! Routes: which destinations the assets of a task go to, and under what key.

use std::collections::BTreeMap;

use globset::Glob;
use globset::GlobSet;
use globset::GlobSetBuilder;

use crate::manifest::row::ObjectPlan;
use crate::model::key::KeyTemplate;
use crate::model::object::DestinationName;
use crate::model::task::ProviderName;
use crate::model::task::Tags;
use crate::watch::RouteConfig;

/// The routes in the order of the configuration: the first that matches wins; when none does, every destination
/// gets a copy under the default key.
#[derive(Clone, Debug)]
pub struct Routes {
    routes: Vec<Route>,
    fallback: Vec<ObjectPlan>,
}

#[derive(Clone, Debug)]
struct Route {
    providers: Option<Vec<ProviderName>>,
    models: Option<GlobSet>,
    tags: BTreeMap<String, String>,
    objects: Vec<ObjectPlan>,
}

impl Routes {
    /// Reads the routes; a model pattern that is no glob is the error.
    pub fn new(
        routes: &[RouteConfig],
        destinations: impl Iterator<Item = DestinationName>,
        default_key: &KeyTemplate,
    ) -> Result<Self, globset::Error> {
        let plan = |destination: DestinationName, key: &KeyTemplate| ObjectPlan {
            destination,
            key_template: key.clone(),
        };
        let read = |route: &RouteConfig| {
            let key = route.key.as_ref().unwrap_or(default_key);
            Ok(Route {
                providers: route.provider.clone(),
                models: route.model.as_deref().map(globs).transpose()?,
                tags: route.tag.clone().unwrap_or_default(),
                objects: route
                    .to
                    .iter()
                    .map(|name| plan(name.clone(), key))
                    .collect(),
            })
        };
        Ok(Self {
            routes: routes
                .iter()
                .map(read)
                .collect::<Result<_, globset::Error>>()?,
            fallback: destinations.map(|name| plan(name, default_key)).collect(),
        })
    }

    /// Where the assets of a task go. Never empty, as long as a destination is configured.
    pub fn plan(
        &self,
        provider: &ProviderName,
        model: Option<&str>,
        tags: &Tags,
    ) -> Vec<ObjectPlan> {
        let matches = |route: &&Route| {
            route
                .providers
                .as_ref()
                .is_none_or(|providers| providers.contains(provider))
                && route
                    .models
                    .as_ref()
                    .is_none_or(|models| model.is_some_and(|model| models.is_match(model)))
                && route
                    .tags
                    .iter()
                    .all(|(key, value)| tags.get(key) == Some(value))
        };
        let first = self.routes.iter().find(matches);
        first.map_or(&self.fallback, |route| &route.objects).clone()
    }
}

fn globs(patterns: &[String]) -> Result<GlobSet, globset::Error> {
    let mut globs = GlobSetBuilder::new();
    for pattern in patterns {
        globs.add(Glob::new(pattern)?);
    }
    globs.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Routes {
        let name = |name: &str| name.parse::<DestinationName>().unwrap();
        let eu = RouteConfig {
            name: "eu".to_owned(),
            provider: Some(vec!["evolink".parse().unwrap()]),
            model: Some(vec!["seedance-*".to_owned()]),
            tag: Some(BTreeMap::from([("region".to_owned(), "eu".to_owned())])),
            to: vec![name("s3_main"), name("r2")],
            key: Some("eu/{task_id}/{index}.{ext}".parse().unwrap()),
        };
        let images = RouteConfig {
            name: "images".to_owned(),
            provider: None,
            model: Some(vec!["*-image".to_owned(), "flux".to_owned()]),
            tag: None,
            to: vec![name("disk")],
            key: None,
        };
        let all = [name("s3_main"), name("r2"), name("disk")].into_iter();
        Routes::new(&[eu, images], all, &"{task_id}/{index}".parse().unwrap()).unwrap()
    }

    #[track_caller]
    fn check(provider: &str, model: Option<&str>, tags: &[(&str, &str)], expected: &str) {
        let tags = tags
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let plan = routes().plan(&provider.parse().unwrap(), model, &tags);
        let text = |it: &ObjectPlan| format!("{}:{}", it.destination, it.key_template);
        assert_eq!(
            plan.iter().map(text).collect::<Vec<_>>().join(" "),
            expected
        );
    }

    #[test]
    fn the_first_that_matches_wins_and_without_one_every_destination_gets_a_copy() {
        let eu = "s3_main:eu/{task_id}/{index}.{ext} r2:eu/{task_id}/{index}.{ext}";
        let all = "s3_main:{task_id}/{index} r2:{task_id}/{index} disk:{task_id}/{index}";
        check(
            "evolink",
            Some("seedance-2.0"),
            &[("region", "eu"), ("x", "y")],
            eu,
        );
        check("house", Some("seedance-2.0"), &[("region", "eu")], all);
        check("evolink", Some("seedance-2.0"), &[("region", "us")], all);
        check("evolink", Some("seedance-2.0"), &[], all);
        check("evolink", None, &[("region", "eu")], all);
        check("house", Some("big-image"), &[], "disk:{task_id}/{index}");
        check(
            "house",
            Some("flux"),
            &[("region", "eu")],
            "disk:{task_id}/{index}",
        );
        check("house", Some("flux-2"), &[], all);
    }

    #[test]
    fn a_pattern_that_is_no_glob_is_refused() {
        assert!(globs(&["a[".to_owned()]).is_err());
    }
}
