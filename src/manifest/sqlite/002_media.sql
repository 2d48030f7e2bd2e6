-- Schema 2: what a player would show of a body, as far as the body itself told. All of it is empty for bodies that were
-- archived before, and for those that tell nothing.

ALTER TABLE assets ADD COLUMN duration_ms INTEGER CHECK (duration_ms > 0);
ALTER TABLE assets ADD COLUMN width INTEGER CHECK (width > 0);
ALTER TABLE assets ADD COLUMN height INTEGER CHECK (height > 0);
ALTER TABLE assets ADD COLUMN codec TEXT CHECK (codec <> '');
