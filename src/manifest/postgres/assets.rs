//! Verbs on assets: the links that a task was seen with, and how a try to archive ends.

use super::Fault;
use super::Tx;
use super::all;
use super::claims::touched;
use super::events;
use super::execute;
use super::statement::named_params;
use super::uploads;
use super::value;
use crate::clock::Timestamp;
use crate::manifest::links::KnownLink;
use crate::manifest::links::LinkFate;
use crate::manifest::links::fates;
use crate::manifest::row::AssetSettlement;
use crate::manifest::row::Claimable;
use crate::manifest::row::ObjectPlan;
use crate::manifest::row::Observed;
use crate::manifest::row::SeenAsset;
use crate::model::asset::AssetIndex;
use crate::model::asset::AssetState;
use crate::model::event::EventKind;
use crate::model::lease::Lease;
use crate::model::task::FETCH_PROVIDER;

const READ_LINKS: &str = "-- manifest::observe
    SELECT id, asset_index, state, url, refresh_asked_at FROM assets
    WHERE task = :task ORDER BY asset_index
    -- In one order, so that two transactions do not wait for each other.
    FOR NO KEY UPDATE";

/// Gives each link to the asset that it belongs to, and makes assets of those that belong to none.
pub(super) async fn write_links(
    tx: &Tx<'_>,
    task: i64,
    seen: &[SeenAsset],
    objects: &[ObjectPlan],
) -> Result<Observed, Fault> {
    let mut observed = Observed::default();
    if seen.is_empty() {
        return Ok(observed);
    }
    let (rows, known): (Vec<i64>, Vec<KnownLink>) = all(
        tx,
        READ_LINKS,
        named_params! { ":task": task },
        "assets",
        |columns| {
            let link = KnownLink {
                index: AssetIndex(columns.number("asset_index")?),
                state: columns.word("state")?,
                url: columns.url("url")?,
                is_awaited: columns.instant_opt("refresh_asked_at")?.is_some(),
            };
            Ok((columns.id, link))
        },
    )
    .await?
    .into_iter()
    .unzip();
    let urls: Vec<_> = seen.iter().map(|asset| asset.link.url.clone()).collect();
    let mut next = known
        .iter()
        .map(|link| link.index.0.saturating_add(1))
        .max()
        .unwrap_or(0);
    let row_at = |at: usize| *rows.get(at).expect("fates are places in what is known");
    for (asset, fate) in seen.iter().zip(fates(&known, &urls)) {
        match fate {
            LinkFate::Known => {}
            LinkFate::Resigned(at) => resign(tx, row_at(at), asset).await?,
            LinkFate::Fresh(at) => {
                refresh(tx, row_at(at), asset).await?;
                observed.links_refreshed = observed.links_refreshed.saturating_add(1);
            }
            LinkFate::New => {
                insert(tx, task, AssetIndex(next), asset, objects).await?;
                next = next.saturating_add(1);
                observed.assets_new = observed.assets_new.saturating_add(1);
            }
        }
    }
    Ok(observed)
}

const RESIGN: &str = "-- manifest::observe
    UPDATE assets
    SET url = :url, deadline_at = :deadline_at, deadline_from = :deadline_from
    -- Nobody asked for this link: it is only worth having if it lives longer.
    WHERE id = :id AND deadline_at < :deadline_at";

async fn resign(tx: &Tx<'_>, row: i64, asset: &SeenAsset) -> Result<(), Fault> {
    let params = named_params! {
        ":url": asset.link.url.as_str(), ":deadline_at": asset.deadline.at.as_unix_millis(),
        ":deadline_from": asset.deadline.from.as_str(), ":id": row,
    };
    execute(tx, RESIGN, params).await.map(|_| ())
}

const REFRESH: &str = "-- manifest::observe
    UPDATE assets
    SET url = :url,
        deadline_at = :deadline_at,
        deadline_from = :deadline_from,
        -- A deadline that comes near is worth another alarm where it was far: twice as far as when the last was raised,
        -- since a link that is signed for an hour at each look is no reason for one at each look.
        warned_at = CASE
            WHEN :deadline_at > :now + 2 * GREATEST(deadline_at - warned_at, 0) THEN NULL
            ELSE warned_at
        END,
        state = 'due',
        due_at = :now,
        -- Due now, whatever it waited for; but until it has brought something it counts with the links before it.
        attempts = CASE WHEN state = 'lost' THEN 0 ELSE attempts END
    WHERE id = :id";

async fn refresh(tx: &Tx<'_>, row: i64, asset: &SeenAsset) -> Result<(), Fault> {
    let params = named_params! {
        ":url": asset.link.url.as_str(), ":deadline_at": asset.deadline.at.as_unix_millis(),
        ":deadline_from": asset.deadline.from.as_str(), ":id": row,
    };
    execute(tx, REFRESH, params).await.map(|_| ())
}

const INSERT_ASSET: &str = "-- manifest::observe
    INSERT INTO assets (task, asset_index, role, state, url, deadline_at, deadline_from, due_at)
    VALUES (:task, :asset_index, :role, 'due', :url, :deadline_at, :deadline_from, :now)
    RETURNING id";

const INSERT_OBJECT: &str = "-- manifest::observe
    INSERT INTO objects (asset, position, destination, state, key_template)
    VALUES (:asset, :position, :destination, 'due', :key_template)";

async fn insert(
    tx: &Tx<'_>,
    task: i64,
    index: AssetIndex,
    asset: &SeenAsset,
    objects: &[ObjectPlan],
) -> Result<(), Fault> {
    let params = named_params! {
    ":task": task, ":asset_index": index.0, ":role": asset.link.role.as_str(),
    ":url": asset.link.url.as_str(), ":deadline_at": asset.deadline.at.as_unix_millis(),
    ":deadline_from": asset.deadline.from.as_str(), };
    let row: Option<i64> = value(tx, INSERT_ASSET, params).await?;
    for (position, object) in (0_i64..).zip(objects) {
        let params = named_params! {
            ":asset": row, ":position": position, ":destination": object.destination.as_str(),
            ":key_template": object.key_template.as_str(),
        };
        execute(tx, INSERT_OBJECT, params).await?;
    }
    Ok(())
}

const SETTLE: &str = "-- manifest::settle_asset
    UPDATE assets
    SET state = :state,
        due_at = :due_at,
        error = :error,
        attempts = CASE WHEN :has_gained THEN 0 ELSE attempts END + CASE WHEN :is_attempt THEN 1 ELSE 0 END,
        refresh_asked_at = CASE WHEN :wants_fresh_link THEN :now ELSE refresh_asked_at END,
        lease_owner = NULL,
        lease_expires_at = NULL
    WHERE id = :id AND lease_token = :token AND lease_expires_at IS NOT NULL";

const ASK_FOR_FRESH_LINK: &str = "-- manifest::settle_asset
    UPDATE tasks
    SET next_look_at = LEAST(COALESCE(next_look_at, :now), :now)
    WHERE id = (SELECT task FROM assets WHERE id = :asset)
        AND state IN ('watching', 'completed')
        -- Behind bare links there is nobody to ask.
        AND provider <> :nobody";

/// Ends a claim on an asset that is not archived yet, or never will be.
pub(in crate::manifest) async fn settle(
    tx: &Tx<'_>,
    lease: &Lease,
    settlement: &AssetSettlement,
) -> Result<(), Fault> {
    let params = named_params! {
        ":state": settlement.state.as_str(),
        ":due_at": settlement.due_at.map(Timestamp::as_unix_millis),
        ":error": settlement.error, ":is_attempt": settlement.is_attempt,
        ":has_gained": settlement.has_gained,
        ":wants_fresh_link": settlement.wants_fresh_link, ":id": lease.row, ":token": lease.token.0,
    };
    // Differs from SQLite, where one transaction is written at a time: a task is locked before its assets, as by a look, or
    // the two would wait for each other. Where the claim is lost this is undone.
    if settlement.wants_fresh_link {
        let params = named_params! { ":asset": lease.row, ":nobody": FETCH_PROVIDER };
        execute(tx, ASK_FOR_FRESH_LINK, params).await?;
    }
    touched(execute(tx, SETTLE, params).await?, Claimable::Assets, lease)?;
    let kind = match settlement.state {
        AssetState::Lost => Some(EventKind::Lost),
        AssetState::Refused => Some(EventKind::Failed),
        AssetState::Due | AssetState::Archived => None,
    };
    if let Some(kind) = kind {
        events::append_of_asset(tx, kind, lease.row, settlement.error.as_deref()).await?;
    }
    if settlement.state.is_final() {
        // Nobody will come back to finish its uploads.
        uploads::retire_all(tx, lease.row).await?;
    }
    Ok(())
}
