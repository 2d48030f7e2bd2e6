//! Whether anything can be written at all.

use super::Fault;
use super::Tx;
use super::events;

/// Writes a row of its own, which has to be as durable as any other.
pub(in crate::manifest) async fn try_write(tx: &Tx<'_>) -> Result<(), Fault> {
    events::prove_writable(tx).await
}
