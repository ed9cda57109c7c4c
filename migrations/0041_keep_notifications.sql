-- Who is told of what becomes of a source's commits and of its drift, and what waits to be told.

ALTER TABLE sources ADD COLUMN notifications jsonb NOT NULL DEFAULT '[]';
COMMENT ON COLUMN sources.notifications IS 'as the last commit whose picloud.yaml could be read declares them';

CREATE TABLE notifications (
    id         uuid PRIMARY KEY,
    source_id  uuid NOT NULL REFERENCES sources ON DELETE CASCADE,
    event      text NOT NULL CHECK (event IN ('failed', 'synced', 'drifted', 'healed')),
    url        text NOT NULL,
    format     text NOT NULL CHECK (format IN ('json', 'slack', 'discord')),
    payload    json NOT NULL,
    attempt    integer NOT NULL DEFAULT 1,
    due_at     timestamptz NOT NULL,
    created_at timestamptz NOT NULL
);
COMMENT ON COLUMN notifications.url IS 'sealed or plain, as it is written in git';
CREATE INDEX notifications_due ON notifications (due_at);
