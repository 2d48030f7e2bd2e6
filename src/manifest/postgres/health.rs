//! Whether anything can be written at all.

use super::Fault;
use super::Tx;
use super::events;
use super::migrate;
use super::migrate::Standing;
use super::statement::named_params;
use super::value;
use crate::manifest::ManifestError;

/// Writes a row of its own, which has to be as durable as any other.
pub(in crate::manifest) async fn try_write(tx: &Tx<'_>) -> Result<(), Fault> {
    events::prove_writable(tx).await
}

/// Who looks does so in a transaction that only reads: what others are to be counts.
const IS_READ_ONLY: &str = "-- manifest::check
    SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean";

const NOT_OURS: &str = "-- manifest::check
    SELECT string_agg(relname::text, ', ' ORDER BY relname) FROM pg_class
    WHERE relname = ANY(:tables) AND relkind = 'r' AND pg_table_is_visible(oid)
        AND NOT (has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
            AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE'))";

/// There is no schema where the search path names none that this role may use.
const MAY_MAKE: &str = "-- manifest::check
    SELECT COALESCE(has_schema_privilege(current_schema(), 'CREATE'), FALSE)";

/// Whether a daemon could write, as far as that can be seen without writing.
pub(super) async fn check_writable(tx: &Tx<'_>) -> Result<(), Fault> {
    let server = || tx.engine.shown.clone();
    if value(tx, IS_READ_ONLY, []).await? == Some(true) {
        let (verb, server) = ("check", server());
        return Err(Fault::Known(ManifestError::Standby { verb, server }));
    }
    let denied = |what: String| {
        let server = server();
        Err(Fault::Known(ManifestError::Denied { server, what }))
    };
    if migrate::standing(tx).await? != Standing::Empty {
        let tables = named_params! { ":tables": migrate::tables() };
        let found: Option<Option<String>> = value(tx, NOT_OURS, tables).await?;
        return match found.flatten() {
            Some(names) => denied(format!("this role may not read and write {names}")),
            None => Ok(()),
        };
    }
    if value(tx, MAY_MAKE, []).await? != Some(true) {
        return denied("this role may make no tables".to_owned());
    }
    Ok(())
}
