-- Schema 8: how many rows stand in each state. The rows keep these numbers themselves, since to count a million of them
-- whenever somebody asks takes a second.

CREATE TABLE counts (
    kind TEXT NOT NULL CHECK (kind IN ('tasks', 'assets')),
    state TEXT NOT NULL,
    rows INTEGER NOT NULL,
    -- Of what is archived.
    bytes INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, state)
) STRICT, WITHOUT ROWID;

INSERT INTO counts (kind, state, rows) SELECT 'tasks', state, COUNT(*) FROM tasks GROUP BY state;
INSERT INTO counts (kind, state, rows, bytes)
    SELECT 'assets', state, COUNT(*), COALESCE(SUM(size) FILTER (WHERE state = 'archived'), 0)
    FROM assets GROUP BY state;

CREATE TRIGGER tasks_counted_in AFTER INSERT ON tasks BEGIN
    INSERT INTO counts (kind, state, rows) VALUES ('tasks', NEW.state, 1)
    ON CONFLICT (kind, state) DO UPDATE SET rows = rows + 1;
END;
CREATE TRIGGER tasks_counted_on AFTER UPDATE OF state ON tasks WHEN OLD.state <> NEW.state BEGIN
    UPDATE counts SET rows = rows - 1 WHERE kind = 'tasks' AND state = OLD.state;
    INSERT INTO counts (kind, state, rows) VALUES ('tasks', NEW.state, 1)
    ON CONFLICT (kind, state) DO UPDATE SET rows = rows + 1;
END;
CREATE TRIGGER tasks_counted_out AFTER DELETE ON tasks BEGIN
    UPDATE counts SET rows = rows - 1 WHERE kind = 'tasks' AND state = OLD.state;
END;

CREATE TRIGGER assets_counted_in AFTER INSERT ON assets BEGIN
    INSERT INTO counts (kind, state, rows, bytes)
    VALUES ('assets', NEW.state, 1, CASE NEW.state WHEN 'archived' THEN NEW.size ELSE 0 END)
    ON CONFLICT (kind, state) DO UPDATE SET rows = rows + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER assets_counted_on AFTER UPDATE OF state ON assets WHEN OLD.state <> NEW.state BEGIN
    UPDATE counts
    SET rows = rows - 1, bytes = bytes - CASE OLD.state WHEN 'archived' THEN OLD.size ELSE 0 END
    WHERE kind = 'assets' AND state = OLD.state;
    INSERT INTO counts (kind, state, rows, bytes)
    VALUES ('assets', NEW.state, 1, CASE NEW.state WHEN 'archived' THEN NEW.size ELSE 0 END)
    ON CONFLICT (kind, state) DO UPDATE SET rows = rows + 1, bytes = bytes + excluded.bytes;
END;
-- Also what goes with its task.
CREATE TRIGGER assets_counted_out AFTER DELETE ON assets BEGIN
    UPDATE counts
    SET rows = rows - 1, bytes = bytes - CASE OLD.state WHEN 'archived' THEN OLD.size ELSE 0 END
    WHERE kind = 'assets' AND state = OLD.state;
END;
