//! Which asset each of a task's links belongs to: providers re-sign, re-name and re-order their links.

use url::Url;

use crate::model::asset::AssetIndex;

/// By what a link is taken for an asset's, the strongest sign first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// The very link.
    SameLink,
    /// The same file under another query, at the asset's place: where files differ in their query alone.
    SameFileAndPlace,
    /// The same file under another query.
    SameFile,
    /// It stands at the asset's place, and nothing else is that asset's.
    Place,
}

/// The owner of each of `links`, which are in the provider's order: its place among `assets`, and by what it was found.
/// No asset takes two. `may_change` says of an asset whether a link at its place may be its own under any name.
pub fn owners(
    links: &[Url],
    assets: &[(AssetIndex, &Url)],
    may_change: impl Fn(usize) -> bool,
) -> Vec<Option<(usize, Sign)>> {
    let mut free = vec![true; assets.len()];
    let mut owners = vec![None; links.len()];
    for sign in [
        Sign::SameLink,
        Sign::SameFileAndPlace,
        Sign::SameFile,
        Sign::Place,
    ] {
        for (place, (link, owner)) in links.iter().zip(owners.iter_mut()).enumerate() {
            if owner.is_some() {
                continue;
            }
            let mut assets = assets.iter().zip(free.iter_mut()).enumerate();
            let found = assets.find(|(at, ((index, own), is_free))| {
                let is_at_its_place = usize::try_from(index.0) == Ok(place);
                **is_free
                    && match sign {
                        Sign::SameLink => link == *own,
                        Sign::SameFileAndPlace => is_same_file(link, own) && is_at_its_place,
                        Sign::SameFile => is_same_file(link, own),
                        Sign::Place => is_at_its_place && may_change(*at),
                    }
            });
            if let Some((at, (_, is_free))) = found {
                *is_free = false;
                *owner = Some((at, sign));
            }
        }
    }
    owners
}

fn is_same_file(one: &Url, other: &Url) -> bool {
    one.host_str() == other.host_str() && one.path() == other.path()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `expected` is the place of each link's asset, in order; -1 where it has none. Any asset may have another link
    /// where `may_change`.
    #[track_caller]
    fn check(assets: &[&str], links: &[&str], may_change: bool, expected: &[i64]) {
        let urls = |paths: &[&str]| -> Vec<Url> {
            let url = |path: &&str| Url::parse(&format!("https://cdn.test/{path}")).unwrap();
            paths.iter().map(url).collect()
        };
        let (assets, links) = (urls(assets), urls(links));
        let assets: Vec<_> = (0..).map(AssetIndex).zip(&assets).collect();
        let found = owners(&links, &assets, |_| may_change);
        let places = found.iter().map(|owner| match owner {
            Some((at, _)) => i64::try_from(*at).unwrap(),
            None => -1,
        });
        assert_eq!(places.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn links_are_told_apart_however_they_are_signed_and_ordered() {
        check(&["a", "b"], &["a", "b"], false, &[0, 1]);
        check(&["a", "b"], &["b", "a"], true, &[1, 0]);
        check(&["a?s=1", "b?s=1"], &["b?s=2", "a?s=2"], true, &[1, 0]);
        let (one, other) = ("get?id=1", "get?id=2");
        check(&[one, other], &[other, one], true, &[1, 0]);
        let signed = ["get?s=3", "get?s=4"];
        check(&["get?s=1", "get?s=2"], &signed, false, &[0, 1]);
        check(&["x1", "x2"], &["y1", "y2"], true, &[0, 1]);
        check(&["x1", "x2"], &["y1", "y2"], false, &[-1, -1]);
        check(&["a", "b"], &["b", "y"], true, &[1, -1]);
        check(&["a"], &["y", "a"], true, &[-1, 0]);
        check(&[], &["a"], true, &[-1]);
    }
}
