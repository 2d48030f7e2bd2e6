-- Schema 6: how far the reading of each provider's list of tasks has come.
--
-- A pass reads the list from its front to tasks that are known or too old to matter, over several steps. A list that
-- moves while it is read is passed again, as a further round.

CREATE TABLE discoveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    provider TEXT NOT NULL UNIQUE,
    -- From when on tasks are wanted, however old their links.
    since_at INTEGER,
    -- Everything that was made before this is known.
    complete_to INTEGER,
    -- When the first round of the pass under way began.
    pass_began_at INTEGER,
    pass_round INTEGER NOT NULL DEFAULT 0,
    -- Where the next page is, in the API's own words.
    pass_place TEXT,
    pass_pages INTEGER NOT NULL DEFAULT 0,
    pass_learned INTEGER NOT NULL DEFAULT 0,
    has_list INTEGER NOT NULL DEFAULT TRUE CHECK (has_list IN (FALSE, TRUE)),
    due_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    lease_token INTEGER NOT NULL DEFAULT 0,
    lease_owner TEXT,
    lease_expires_at INTEGER,
    CONSTRAINT discoveries_lease_whole CHECK ((lease_owner IS NULL) = (lease_expires_at IS NULL))
) STRICT;
