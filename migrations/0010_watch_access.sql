-- Whoever holds a key or a session open is told when that ends; audit and sessions as they are used.

-- The token against forged requests is derived from the session's own, which only the browser has.
ALTER TABLE sessions DROP COLUMN csrf;
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

CREATE INDEX audit_log_by_app ON audit_log (app, id DESC) WHERE app IS NOT NULL;

CREATE FUNCTION note_access() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('picloud_access', '');
    RETURN NULL;
END
$$;

CREATE TRIGGER note_access AFTER DELETE OR TRUNCATE OR UPDATE OF revoked_at, expires_at, scopes, app_id
    ON api_keys FOR EACH STATEMENT EXECUTE FUNCTION note_access();
CREATE TRIGGER note_access AFTER DELETE OR TRUNCATE
    ON sessions FOR EACH STATEMENT EXECUTE FUNCTION note_access();
