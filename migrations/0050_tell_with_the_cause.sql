-- Notifications are written in the transaction of what they tell of.

ALTER TABLE deployments ADD COLUMN told boolean NOT NULL DEFAULT true;
ALTER TABLE deployments ALTER COLUMN told SET DEFAULT false;
COMMENT ON COLUMN deployments.told IS 'whether its end was told to whoever wants to know';

CREATE TABLE told_drift (
    source_id uuid NOT NULL REFERENCES sources ON DELETE CASCADE,
    app       text NOT NULL,
    at        timestamptz NOT NULL,
    PRIMARY KEY (source_id, app)
);
COMMENT ON TABLE told_drift IS 'apps of which it was told that they drift, and not yet that they no longer do';

CREATE TABLE trigger_failures (
    app_id  uuid NOT NULL REFERENCES apps ON DELETE CASCADE,
    trigger text NOT NULL,
    since   timestamptz NOT NULL,
    count   bigint NOT NULL,
    PRIMARY KEY (app_id, trigger)
);
COMMENT ON TABLE trigger_failures IS 'dead letters of a trigger within an hour from the first, while somebody wants to be told';

ALTER TABLE notifications DROP CONSTRAINT notifications_event_check;
ALTER TABLE notifications ADD CONSTRAINT notifications_event_check
    CHECK (event IN ('failed', 'synced', 'drifted', 'healed', 'failing'));
