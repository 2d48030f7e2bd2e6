-- Schema 4: hints. A provider may say that a task has news while it is being looked at, and the look may have come just
-- before the news: then it is looked at once more.

ALTER TABLE tasks ADD COLUMN heard_at INTEGER;
