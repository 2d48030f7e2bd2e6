-- Schema 7: holds. A claim on a watched task may outlast many looks; whoever holds it finds by this index what it is to
-- look at now.

CREATE INDEX tasks_heard ON tasks (heard_at) WHERE heard_at IS NOT NULL AND lease_expires_at IS NOT NULL;
