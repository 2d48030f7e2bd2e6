-- Schema 5: the provider's last answer about a task that is over, so that the provider may forget it.

CREATE TABLE answers (
    task INTEGER PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
    -- As the provider sent it, but for our key.
    body BLOB NOT NULL CHECK (length(body) <= 262144),
    -- When the first one came.
    at INTEGER NOT NULL
) STRICT;
