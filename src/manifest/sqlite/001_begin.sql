-- Schema 1. Times are unix milliseconds, UTC; checksums are hexadecimal text; tags are a JSON object.
--
-- A lease is three columns: the token is one more at each claim and never goes back; owner and expiry are there
-- while the row is claimed. IDs are never used twice (AUTOINCREMENT), or a late write under an old lease could hit
-- a new row.

-- "Reel": what tells a manifest from any other database.
PRAGMA application_id = 1382376812;

CREATE TABLE tasks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    provider TEXT NOT NULL,
    task_id TEXT NOT NULL,
    state TEXT NOT NULL
        CHECK (state IN ('watching', 'completed', 'failed', 'cancelled', 'vanished', 'abandoned')),
    tags TEXT NOT NULL,
    model TEXT,
    kind TEXT,
    learned_at INTEGER NOT NULL,
    learned_via TEXT NOT NULL
        CHECK (learned_via IN ('cli', 'fetch', 'webhook', 'api', 'gateway', 'discovery', 'spool')),
    created_at INTEGER,
    completed_at INTEGER,
    last_unfinished_at INTEGER,
    deadline_at INTEGER NOT NULL,
    deadline_from TEXT NOT NULL
        CHECK (deadline_from IN ('provider', 'signature', 'preset', 'last_seen', 'created', 'learned')),
    next_look_at INTEGER,
    status TEXT,
    percent INTEGER CHECK (percent BETWEEN 0 AND 100),
    estimate_ms INTEGER,
    looks INTEGER NOT NULL DEFAULT 0,
    misses INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    task_error_code TEXT,
    task_error_message TEXT,
    warned_at INTEGER,
    lease_token INTEGER NOT NULL DEFAULT 0,
    lease_owner TEXT,
    lease_expires_at INTEGER,
    -- The ID comes first, so that people can look a task up without naming its provider.
    UNIQUE (task_id, provider),
    -- Every row is final or has a due time. A completed task is looked at again when a fresh link was asked for.
    CONSTRAINT tasks_final_or_due CHECK (
        CASE state
            WHEN 'watching' THEN next_look_at IS NOT NULL
            WHEN 'completed' THEN TRUE
            ELSE next_look_at IS NULL
        END
    ),
    CONSTRAINT tasks_lease_whole CHECK ((lease_owner IS NULL) = (lease_expires_at IS NULL)),
    CONSTRAINT tasks_error_whole CHECK ((task_error_code IS NULL) = (task_error_message IS NULL))
) STRICT;

CREATE INDEX tasks_due ON tasks (next_look_at, deadline_at, provider)
    WHERE next_look_at IS NOT NULL AND lease_expires_at IS NULL;
CREATE INDEX tasks_leased ON tasks (lease_expires_at, next_look_at) WHERE lease_expires_at IS NOT NULL;
-- Serves counts by state and what dies next in a state.
CREATE INDEX tasks_state ON tasks (state, deadline_at);

CREATE TABLE assets (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    task INTEGER NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    asset_index INTEGER NOT NULL CHECK (asset_index >= 0),
    role TEXT NOT NULL CHECK (role IN ('video', 'image', 'audio', 'file')),
    state TEXT NOT NULL CHECK (state IN ('due', 'archived', 'lost', 'refused')),
    url TEXT NOT NULL,
    deadline_at INTEGER NOT NULL,
    deadline_from TEXT NOT NULL
        CHECK (deadline_from IN ('provider', 'signature', 'preset', 'last_seen', 'created', 'learned')),
    due_at INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    refresh_asked_at INTEGER,
    warned_at INTEGER,
    source_etag TEXT,
    source_last_modified TEXT,
    source_length INTEGER,
    size INTEGER,
    content_type TEXT,
    sha256 TEXT,
    crc64nvme TEXT,
    archived_at INTEGER,
    lease_token INTEGER NOT NULL DEFAULT 0,
    lease_owner TEXT,
    lease_expires_at INTEGER,
    UNIQUE (task, asset_index),
    CONSTRAINT assets_final_or_due CHECK ((state = 'due') = (due_at IS NOT NULL)),
    CONSTRAINT assets_archived_is_proven CHECK (
        state <> 'archived'
        OR (archived_at IS NOT NULL AND size IS NOT NULL AND crc64nvme IS NOT NULL AND lease_expires_at IS NULL)
    ),
    CONSTRAINT assets_lease_whole CHECK ((lease_owner IS NULL) = (lease_expires_at IS NULL))
) STRICT;

CREATE INDEX assets_due ON assets (due_at, deadline_at)
    WHERE due_at IS NOT NULL AND lease_expires_at IS NULL;
CREATE INDEX assets_leased ON assets (lease_expires_at, due_at) WHERE lease_expires_at IS NOT NULL;
CREATE INDEX assets_state ON assets (state, deadline_at, size);

CREATE TABLE objects (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    asset INTEGER NOT NULL REFERENCES assets (id) ON DELETE CASCADE,
    -- The order of the route.
    position INTEGER NOT NULL,
    destination TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('due', 'uploading', 'archived')),
    key_template TEXT NOT NULL,
    key TEXT,
    nonce TEXT,
    content_type TEXT,
    extension TEXT,
    named_at INTEGER,
    upload_id TEXT,
    part_size INTEGER,
    upload_etag TEXT,
    upload_last_modified TEXT,
    upload_length INTEGER,
    etag TEXT,
    version_id TEXT,
    parts INTEGER NOT NULL DEFAULT 0,
    size INTEGER,
    crc64nvme TEXT,
    verified TEXT CHECK (verified IN ('none', 'head', 'checksum', 'read')),
    archived_at INTEGER,
    UNIQUE (asset, destination),
    -- Two assets never share a key: the second would have to overwrite the first.
    UNIQUE (destination, key),
    CONSTRAINT objects_name_whole CHECK (
        (key IS NULL) = (nonce IS NULL) AND (key IS NULL) = (content_type IS NULL)
        AND (key IS NULL) = (extension IS NULL) AND (key IS NULL) = (named_at IS NULL)
    ),
    CONSTRAINT objects_upload_whole CHECK (
        (upload_id IS NULL) = (part_size IS NULL)
        AND (upload_id IS NULL OR (state = 'uploading' AND key IS NOT NULL))
    ),
    CONSTRAINT objects_archived_is_proven CHECK (
        (state = 'archived') = (archived_at IS NOT NULL) AND (state = 'archived') = (verified IS NOT NULL)
        AND (state = 'archived') = (size IS NOT NULL) AND (state = 'archived') = (crc64nvme IS NOT NULL)
        AND (state <> 'archived' OR key IS NOT NULL)
    )
) STRICT;

CREATE TABLE parts (
    object INTEGER NOT NULL REFERENCES objects (id) ON DELETE CASCADE,
    number INTEGER NOT NULL CHECK (number BETWEEN 1 AND 10000),
    length INTEGER NOT NULL CHECK (length >= 0),
    etag TEXT NOT NULL,
    crc64nvme TEXT NOT NULL,
    progress BLOB,
    PRIMARY KEY (object, number)
) STRICT, WITHOUT ROWID;

-- Uploads of ours that nobody will finish. They outlive the task that they were opened for.
CREATE TABLE orphans (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    destination TEXT NOT NULL,
    key TEXT NOT NULL,
    upload_id TEXT NOT NULL,
    due_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    lease_token INTEGER NOT NULL DEFAULT 0,
    lease_owner TEXT,
    lease_expires_at INTEGER,
    UNIQUE (destination, key, upload_id),
    CONSTRAINT orphans_lease_whole CHECK ((lease_owner IS NULL) = (lease_expires_at IS NULL))
) STRICT;

CREATE INDEX orphans_due ON orphans (due_at) WHERE due_at IS NOT NULL AND lease_expires_at IS NULL;
CREATE INDEX orphans_leased ON orphans (lease_expires_at, due_at) WHERE lease_expires_at IS NOT NULL;
