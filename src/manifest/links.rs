//! What becomes of the result links of a look: which are known, which are signed anew, and which are new.

use url::Url;

use crate::model::asset::AssetIndex;
use crate::model::asset::AssetState;
use crate::model::links::Sign;
use crate::model::links::owners;

/// What is known of one asset of a task.
#[derive(Clone, Debug)]
pub(super) struct KnownLink {
    /// Its place.
    pub(super) index: AssetIndex,
    /// Where it stands.
    pub(super) state: AssetState,
    /// Its link.
    pub(super) url: Url,
    /// Whether the provider was asked for a fresh link, and nothing was archived since.
    pub(super) is_awaited: bool,
}

/// What becomes of one link that was seen. The numbers are places in the list of what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkFate {
    /// It tells nothing new.
    Known,
    /// Another signature on the link of a due asset that did not ask for one: worth keeping, no reason to hurry.
    Resigned(usize),
    /// The fresh link of an asset, which is due now.
    Fresh(usize),
    /// An asset that was not known.
    New,
}

/// The fate of each link of `seen`, which is in the provider's order.
pub(super) fn fates(known: &[KnownLink], seen: &[Url]) -> Vec<LinkFate> {
    let assets: Vec<_> = known.iter().map(|it| (it.index, &it.url)).collect();
    // The asset still waits, its own link is gone from the list, and another stands at its place.
    let may_change = |at: usize| {
        let asset = known.get(at);
        asset.is_some_and(|asset| may_take_another_link(asset.state))
    };
    let owners = owners(seen, &assets, may_change).into_iter();
    let fates = owners.map(|owner| {
        let (at, sign) = owner?;
        let asset = known.get(at)?;
        Some(fate_of(sign, asset.state, asset.is_awaited, at))
    });
    fates.map(|fate| fate.unwrap_or(LinkFate::New)).collect()
}

fn fate_of(sign: Sign, state: AssetState, is_awaited: bool, at: usize) -> LinkFate {
    match (sign, state) {
        (Sign::SameLink, _) | (_, AssetState::Archived | AssetState::Refused) => LinkFate::Known,
        (Sign::SameFileAndPlace | Sign::SameFile, AssetState::Due) if !is_awaited => {
            LinkFate::Resigned(at)
        }
        (
            Sign::SameFileAndPlace | Sign::SameFile | Sign::Place,
            AssetState::Due | AssetState::Lost,
        ) => LinkFate::Fresh(at),
    }
}

fn may_take_another_link(state: AssetState) -> bool {
    match state {
        AssetState::Due | AssetState::Lost => true,
        AssetState::Archived | AssetState::Refused => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `known` as "state url", a trailing `?` on the state where a fresh link was asked for.
    #[track_caller]
    fn check(known: &[&str], seen: &[&str], expected: &[LinkFate]) {
        let parse = |path: &str| Url::parse(&format!("https://cdn.test/{path}")).unwrap();
        let known: Vec<KnownLink> = known
            .iter()
            .zip(0..)
            .map(|(text, index)| {
                let (state, path) = text.split_once(' ').unwrap();
                KnownLink {
                    index: AssetIndex(index),
                    state: state.trim_end_matches('?').parse().unwrap(),
                    url: parse(path),
                    is_awaited: state.ends_with('?'),
                }
            })
            .collect();
        let seen: Vec<Url> = seen.iter().map(|path| parse(path)).collect();
        assert_eq!(fates(&known, &seen), expected);
    }

    #[test]
    fn links_find_their_assets() {
        use LinkFate::Fresh;
        use LinkFate::Known;
        use LinkFate::New;
        use LinkFate::Resigned;
        check(&[], &["a", "b"], &[New, New]);
        check(&["due a", "due b"], &["a", "b"], &[Known, Known]);
        check(&["due a", "due b"], &["b", "a"], &[Known, Known]);
        check(&["due a?s=1"], &["a?s=2"], &[Resigned(0)]);
        check(&["due? a?s=1"], &["a?s=2"], &[Fresh(0)]);
        check(&["due? a?s=1"], &["a?s=1"], &[Known]);
        check(&["lost a?s=1"], &["a?s=2"], &[Fresh(0)]);
        check(&["lost a?s=1"], &["a?s=1"], &[Known]);
        check(&["archived a?s=1"], &["a?s=2"], &[Known]);
        check(&["refused a?s=1"], &["a?s=2"], &[Known]);
    }

    #[test]
    fn a_link_under_another_name_goes_to_the_asset_at_its_place_if_that_still_waits() {
        use LinkFate::Fresh;
        use LinkFate::Known;
        use LinkFate::New;
        check(&["due a"], &["x"], &[Fresh(0)]);
        check(&["lost a"], &["x"], &[Fresh(0)]);
        check(&["archived a"], &["x"], &[New]);
        check(&["refused a"], &["x"], &[New]);
        // The asset's own link is still in the list: the other one is another file.
        check(&["due a"], &["x", "a"], &[New, Known]);
        check(&["archived a", "due b"], &["x", "y"], &[New, Fresh(1)]);
        check(&["due a", "due b"], &["b", "x"], &[Known, New]);
    }

    #[test]
    fn files_told_apart_by_their_query_alone_keep_their_places() {
        use LinkFate::Fresh;
        use LinkFate::Known;
        use LinkFate::New;
        use LinkFate::Resigned;
        check(
            &["due d?f=1", "due d?f=2"],
            &["d?f=2", "d?f=1"],
            &[Known, Known],
        );
        check(
            &["due d?f=1", "due? d?f=2"],
            &["d?g=1", "d?g=2"],
            &[Resigned(0), Fresh(1)],
        );
        check(&["due d?f=1"], &["d?f=1", "d?f=2"], &[Known, New]);
    }
}
