-- What the last applied commit declares, kept beside what is live, so that the two can be compared
-- without git, field by field. Rows of it change in the transaction that changes what is live.

CREATE TABLE desired_apps (
    source_id     uuid NOT NULL REFERENCES sources ON DELETE CASCADE,
    name          text NOT NULL,
    app_id        uuid NOT NULL,
    pinned_commit text,
    spec          json NOT NULL,
    PRIMARY KEY (source_id, name)
);
COMMENT ON COLUMN desired_apps.app_id IS 'finds the app again when its name was changed by hand; no reference: it may be gone';
COMMENT ON COLUMN desired_apps.pinned_commit IS 'where the app stays while newer commits of it are invalid';

ALTER TABLE sources ADD COLUMN settings json;
COMMENT ON COLUMN sources.settings IS 'picloud.yaml of the commit that is live; null: nothing was applied since it is kept';
-- What is live already is compared once its head was applied anew.
UPDATE sources SET settled_head = NULL WHERE live_commit IS NOT NULL;

ALTER TABLE deployments
    ADD COLUMN reason text NOT NULL DEFAULT 'commit' CHECK (reason IN ('commit', 'rollback', 'heal')),
    ADD COLUMN waits_until timestamptz,
    ADD COLUMN signed_by text;
COMMENT ON COLUMN deployments.waits_until IS 'when the window opens that a waiting deployment waits for';
COMMENT ON COLUMN deployments.signed_by IS 'whose signature of the commit was verified';
