//! Verbs on discoveries: want, claim, settle.

use super::Fault;
use super::Tx;
use super::all;
use super::claims::limit;
use super::claims::touched;
use super::columns::Columns;
use super::execute;
use super::statement::named_params;
use crate::clock::Timestamp;
use crate::manifest::row::Claimable;
use crate::manifest::row::discovery::ClaimedDiscovery;
use crate::manifest::row::discovery::Discovery;
use crate::manifest::row::discovery::DiscoverySettlement;
use crate::manifest::row::discovery::Wanted;
use crate::model::lease::Lease;
use crate::model::task::ProviderName;

const WANT: &str = "-- manifest::want_discoveries
    INSERT INTO discoveries (provider, since_at, due_at)
    VALUES (:provider, :since_at, :now)
    ON CONFLICT (provider) DO UPDATE
    SET since_at = excluded.since_at, complete_to = NULL, pass_began_at = NULL, pass_round = 0,
        pass_place = NULL, pass_pages = 0, pass_learned = 0, due_at = excluded.due_at,
        -- Who reads it now has an older wish: its outcome is not to be taken for this one's.
        lease_token = discoveries.lease_token + 1, lease_owner = NULL, lease_expires_at = NULL
    -- A wish that goes no further back is fulfilled by what is known already.
    WHERE excluded.since_at < COALESCE(discoveries.since_at, 9223372036854775807)";

/// Makes the lists known that are to be read.
pub(in crate::manifest) async fn want(tx: &Tx<'_>, wanted: &[Wanted]) -> Result<(), Fault> {
    for Wanted { provider, since } in wanted {
        let params = named_params! {
        ":provider": provider.as_str(), ":since_at": since.map(Timestamp::as_unix_millis),
        };
        execute(tx, WANT, params).await?;
    }
    Ok(())
}

const CLAIM: &str = "-- manifest::claim_discoveries
    UPDATE discoveries
    SET lease_token = lease_token + 1, lease_owner = :owner, lease_expires_at = :lease_until
    WHERE id = ANY(ARRAY(
        SELECT id FROM discoveries
        WHERE COALESCE(lease_expires_at, 0) <= :now AND due_at <= :now
            AND provider = ANY(:among)
        ORDER BY due_at, id
        LIMIT :most
        FOR NO KEY UPDATE SKIP LOCKED
    ))
    RETURNING *";

/// Claims lists to be read.
pub(in crate::manifest) async fn claim(
    tx: &Tx<'_>,
    most: usize,
    among: &[ProviderName],
) -> Result<Vec<ClaimedDiscovery>, Fault> {
    let among: Vec<String> = among.iter().map(ToString::to_string).collect();
    let params = named_params! {
        ":among": among, ":most": limit(most),
    };
    let read = |columns: &Columns<'_>| columns.claimed_discovery();
    all(tx, CLAIM, params, "discoveries", read).await
}

const SETTLE: &str = "-- manifest::settle_discovery
    UPDATE discoveries
    SET complete_to = :complete_to,
        pass_began_at = :began_at,
        pass_round = :round,
        pass_place = :place,
        pass_pages = :pages,
        pass_learned = :learned,
        has_list = :has_list,
        due_at = :due_at,
        attempts = CASE WHEN :is_attempt THEN attempts + 1 ELSE 0 END,
        error = :error,
        lease_owner = NULL,
        lease_expires_at = NULL
    WHERE id = :id AND lease_token = :token AND lease_expires_at IS NOT NULL";

/// Writes how far the reading of a list has come and ends the claim.
pub(in crate::manifest) async fn settle(
    tx: &Tx<'_>,
    lease: &Lease,
    settlement: &DiscoverySettlement,
) -> Result<(), Fault> {
    let Discovery {
        complete_to,
        pass,
        has_list,
    } = &settlement.discovery;
    let pass = pass.as_ref();
    let params = named_params! {
        ":complete_to": complete_to.map(Timestamp::as_unix_millis),
        ":began_at": pass.map(|pass| pass.began_at.as_unix_millis()),
        ":round": pass.map_or(0, |pass| pass.round),
        ":place": pass.and_then(|pass| pass.place.as_deref()),
        ":pages": pass.map_or(0, |pass| pass.pages),
        ":learned": pass.map_or(0, |pass| pass.learned),
        ":has_list": has_list, ":due_at": settlement.due_at.as_unix_millis(),
        ":is_attempt": settlement.is_attempt, ":error": settlement.error,
        ":id": lease.row, ":token": lease.token.0,
    };
    touched(
        execute(tx, SETTLE, params).await?,
        Claimable::Discoveries,
        lease,
    )
}
