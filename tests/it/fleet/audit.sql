-- What the server itself sees of leases, whatever daemons believe: which session made which claim, and each write to
-- claimed rows that came from another session. Every life of a daemon has a session name of its own.

CREATE TABLE audit_claims (
    kind TEXT, id BIGINT, token BIGINT, session TEXT, is_taken_over BOOLEAN, PRIMARY KEY (kind, id, token)
);
CREATE TABLE audit_wrong (what TEXT);

CREATE FUNCTION audit_is_mine(of_kind TEXT, of_id BIGINT, of_token BIGINT) RETURNS BOOLEAN LANGUAGE sql AS $$
    SELECT EXISTS (
        SELECT FROM audit_claims
        WHERE kind = of_kind AND id = of_id AND token = of_token AND session = current_setting('application_name')
    )
$$;

CREATE FUNCTION audit_tell(did TEXT, of_kind TEXT, of_id BIGINT, owner TEXT) RETURNS VOID LANGUAGE sql AS $$
    INSERT INTO audit_wrong
    VALUES (format('%s %s %s %s, owner %s', current_setting('application_name'), did, of_kind, of_id, owner))
$$;

-- Whoever starts ends the claims of its machine's earlier lives, and the living those of a machine that is gone: without a
-- word on anything else in the row.
CREATE FUNCTION audit_is_release(old JSONB, new JSONB) RETURNS BOOLEAN LANGUAGE sql AS $$
    SELECT new ->> 'lease_owner' IS NULL AND new ->> 'lease_expires_at' IS NULL
        AND old - '{lease_owner, lease_expires_at}'::text[] = new - '{lease_owner, lease_expires_at}'::text[]
        AND (
            split_part(old ->> 'lease_owner', '/', 1) = split_part(current_setting('application_name'), '-', 1)
            OR NOT EXISTS (
                SELECT FROM machines
                WHERE name = split_part(old ->> 'lease_owner', '/', 1)
                    AND beat_at >= FLOOR(EXTRACT(EPOCH FROM statement_timestamp()) * 1000) - 15000
            )
        )
$$;

CREATE FUNCTION audit_lease() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.lease_token = OLD.lease_token THEN
        -- Renewed or ended, which only whoever made the claim may do.
        IF (NEW.lease_owner, NEW.lease_expires_at) IS DISTINCT FROM (OLD.lease_owner, OLD.lease_expires_at)
            AND NOT audit_is_mine(TG_TABLE_NAME, OLD.id, OLD.lease_token)
            AND NOT audit_is_release(to_jsonb(OLD), to_jsonb(NEW))
        THEN
            PERFORM audit_tell('wrote to the lease of', TG_TABLE_NAME, OLD.id, OLD.lease_owner);
        END IF;
        RETURN NULL;
    END IF;
    IF NEW.lease_token <> OLD.lease_token + 1 THEN
        PERFORM audit_tell('jumped the token of', TG_TABLE_NAME, OLD.id, OLD.lease_owner);
    END IF;
    IF OLD.lease_expires_at > FLOOR(EXTRACT(EPOCH FROM statement_timestamp()) * 1000) THEN
        PERFORM audit_tell('claimed what is held,', TG_TABLE_NAME, OLD.id, OLD.lease_owner);
    END IF;
    INSERT INTO audit_claims
    VALUES (TG_TABLE_NAME, OLD.id, NEW.lease_token, current_setting('application_name'), OLD.lease_owner IS NOT NULL);
    RETURN NULL;
END $$;

CREATE FUNCTION audit_end() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    IF NOT audit_is_mine(TG_TABLE_NAME, OLD.id, OLD.lease_token) THEN
        PERFORM audit_tell('deleted', TG_TABLE_NAME, OLD.id, OLD.lease_owner);
    END IF;
    RETURN NULL;
END $$;

-- What belongs to an asset is written by whoever made the last claim on it.
CREATE FUNCTION audit_object() RETURNS TRIGGER LANGUAGE plpgsql AS $$
DECLARE
    object_id BIGINT;
    held RECORD;
BEGIN
    IF TG_TABLE_NAME = 'objects' THEN
        object_id := NEW.id;
    ELSIF TG_OP = 'DELETE' THEN
        object_id := OLD.object;
    ELSE
        object_id := NEW.object;
    END IF;
    SELECT assets.* INTO held FROM assets JOIN objects ON objects.asset = assets.id WHERE objects.id = object_id;
    IF NOT audit_is_mine('assets', held.id, held.lease_token) THEN
        PERFORM audit_tell(TG_OP, TG_TABLE_NAME, object_id, held.lease_owner);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER audit AFTER UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION audit_lease();
CREATE TRIGGER audit AFTER UPDATE ON assets FOR EACH ROW EXECUTE FUNCTION audit_lease();
CREATE TRIGGER audit AFTER UPDATE ON orphans FOR EACH ROW EXECUTE FUNCTION audit_lease();
CREATE TRIGGER audit_end AFTER DELETE ON orphans FOR EACH ROW EXECUTE FUNCTION audit_end();
CREATE TRIGGER audit AFTER UPDATE ON objects FOR EACH ROW EXECUTE FUNCTION audit_object();
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON parts FOR EACH ROW EXECUTE FUNCTION audit_object();
