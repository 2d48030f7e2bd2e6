//! Every metric, declared once: its name, what kind it is, and what it says to people.

/// A metric as it is declared. The prefix and a counter's `_total` stand in no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// In base units, with the unit last.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// One sentence without its full stop.
    pub help: &'static str,
}

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, and begins anew with the daemon.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often values were how large.
    Histogram,
}

impl Name {
    /// As it stands in the answer, with prefix and `_total`.
    pub fn in_full(&self) -> String {
        match self.kind {
            Kind::Counter => format!("{PREFIX}_{}_total", self.name),
            Kind::Gauge | Kind::Histogram => format!("{PREFIX}_{}", self.name),
        }
    }
}

/// What stands before every name.
pub const PREFIX: &str = "reelvault";

macro_rules! declare {
    ($($constant:ident: $kind:ident $name:literal $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Name = Name { name: $name, kind: Kind::$kind, help: $help };
        )*

        /// All of them, in the order in which people read them.
        pub const ALL: &[Name] = &[$($constant),*];
    };
}

declare! {
    ASSETS_LOST: Counter "assets_lost"
        "Assets of a provider that this daemon gave up as lost";
    ASSETS_AT_RISK: Gauge "assets_at_risk"
        "Videos that are not archived and die within deadline.warn, counted up to 10 000";
    DEADLINE_NEXT: Gauge "deadline_next_seconds"
        "Time until the first deadline of all that is not archived: of a link, or of a task that is watched, whose link may be there already; +Inf while nothing waits, below 0 when it is past";
    DEADLINE_MARGIN: Histogram "deadline_margin_seconds"
        "Time that was left when an asset was archived; 0 when its deadline was past";
    BACKLOG_BYTES: Gauge "backlog_bytes"
        "What is due still has to be moved, estimated: its number times the mean length of what is archived";
    BACKLOG_DRAIN: Gauge "backlog_drain_seconds"
        "Time until the backlog is moved at the rate of the last minutes, all machines together; +Inf while nothing moves";
    ARCHIVE_DELAY: Histogram "archive_delay_seconds"
        "Time from a task's completion, or from what is last known before it, until an asset of it was archived";
    TASKS: Gauge "tasks"
        "Tasks in the manifest in each state";
    ASSETS: Gauge "assets"
        "Assets in the manifest in each state";
    ARCHIVED_BYTES: Counter "archived_bytes"
        "Bytes of proven objects at a destination";
    TRANSFERS_ACTIVE: Gauge "transfers_active"
        "Objects whose bytes this daemon moves to a destination now";
    BUFFER_BYTES: Gauge "buffer_bytes"
        "Video that this daemon holds in memory, of transfer.memory";
    UPLOADS_ORPHANED: Gauge "uploads_orphaned"
        "Uploads at stores that wait to be aborted";
    PROVIDER_REQUESTS: Counter "provider_requests"
        "Calls to a provider's API by what came of them";
    PROVIDER_REFUSED: Gauge "provider_refused"
        "Whether a provider does not accept the account: 1 until it is accepted again";
    DESTINATION_REQUESTS: Counter "destination_requests"
        "Operations at a destination by what came of them";
    DESTINATION_CLOSED: Gauge "destination_closed"
        "Whether a destination takes nothing: 1 until a try goes through";
    LEASES_LOST: Counter "leases_lost"
        "Claims of a stage that somebody else has by now, since they were not renewed in time";
    STAGE_TURNS: Counter "stage_turns"
        "Turns of a stage's loop; one that stands still hangs";
    HOOKS_RECEIVED: Counter "hooks_received"
        "Webhooks of a provider by what came of them";
    GATEWAY_SUBMISSIONS: Counter "gateway_submissions"
        "Submissions that passed the gateway: learned, deferred (to be learned later) or missed (written down nowhere)";
    GATEWAY_UNLEARNED: Gauge "gateway_unlearned"
        "Tasks that passed the gateway and wait to be learned, since the manifest could not be written";
    MACHINES: Gauge "machines"
        "Daemons on one manifest that are heard of, and those that fell silent within a day";
    MACHINE_LIVING: Gauge "machine_living"
        "Whether a daemon of the fleet is heard of: 1 or 0";
    MANIFEST_ANSWERS: Gauge "manifest_answers"
        "Whether the manifest answered when it was last asked for what stands here: 1 or 0";
    MANIFEST_AGE: Gauge "manifest_age_seconds"
        "How old the manifest's numbers are; +Inf before the first";
    ENDPOINTS_DISABLED: Gauge "endpoints_disabled"
        "Endpoints that are told nothing until a reload, since they took nothing for five days or answered 410";
    BUILD: Gauge "build_info"
        "Always 1; the version is a label";
}
