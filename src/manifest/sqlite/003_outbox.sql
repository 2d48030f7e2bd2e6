-- Schema 3: what people hear of. A transition that somebody may want to hear of appends its event in its own
-- transaction; each event then becomes one delivery for each endpoint that wants it.

-- Where whoever announced the task wants to be called once it is archived, failed or lost. May be signed.
ALTER TABLE tasks ADD COLUMN callback_url TEXT;

CREATE TABLE events (
    -- Rises; streams go on from the last one that was seen.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL
        CHECK (kind IN ('learned', 'ready', 'archived', 'failed', 'at_risk', 'lost')),
    task INTEGER NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    -- Empty where it is about the whole task.
    asset_index INTEGER CHECK (asset_index >= 0),
    reason TEXT,
    at INTEGER NOT NULL,
    -- Whether its deliveries were made. A flag and no cursor: where several write at once, an event may be committed
    -- after one with a higher number, and a cursor would pass it over.
    is_fanned INTEGER NOT NULL DEFAULT 0 CHECK (is_fanned IN (0, 1))
) STRICT;

CREATE INDEX events_unfanned ON events (id) WHERE is_fanned = 0;
CREATE INDEX events_at ON events (at);
CREATE INDEX events_task ON events (task);

CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    event INTEGER NOT NULL REFERENCES events (id) ON DELETE CASCADE,
    -- A configured endpoint, or the host of the task's callback.
    endpoint TEXT NOT NULL,
    -- The same at every try, so that whoever gets it twice can tell.
    message_id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('due', 'sent', 'given_up')),
    due_at INTEGER,
    -- When its tries began: at first, and again when it is replayed.
    begun_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    lease_token INTEGER NOT NULL DEFAULT 0,
    lease_owner TEXT,
    lease_expires_at INTEGER,
    UNIQUE (event, endpoint),
    CONSTRAINT deliveries_final_or_due CHECK ((state = 'due') = (due_at IS NOT NULL)),
    CONSTRAINT deliveries_lease_whole CHECK ((lease_owner IS NULL) = (lease_expires_at IS NULL))
) STRICT;

-- What is due at one endpoint, and which endpoints have something due, however much that is.
CREATE INDEX deliveries_endpoint ON deliveries (endpoint, due_at)
    WHERE due_at IS NOT NULL AND lease_expires_at IS NULL;
CREATE INDEX deliveries_due ON deliveries (due_at) WHERE due_at IS NOT NULL AND lease_expires_at IS NULL;
CREATE INDEX deliveries_leased ON deliveries (lease_expires_at, due_at) WHERE lease_expires_at IS NOT NULL;

-- How endpoints are, as far as there is something to say: one that works has no row.
CREATE TABLE endpoints (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    -- Since when nothing was taken.
    failing_since INTEGER NOT NULL,
    -- It asked for a pause, as with Retry-After.
    paused_until INTEGER,
    -- Nothing is sent there until somebody enables it.
    disabled_at INTEGER,
    error TEXT NOT NULL
) STRICT;
