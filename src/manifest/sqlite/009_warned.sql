-- Schema 9: what an alarm was raised for. Each second those are looked for that are out of danger again; among all that
-- are watched, that took longer than a hundred looks.

CREATE INDEX tasks_warned ON tasks (deadline_at) WHERE warned_at IS NOT NULL;
