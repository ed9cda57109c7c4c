-- What became of each app of a commit, and which plans were reviewed.

ALTER TABLE deployments
    ADD COLUMN apps json NOT NULL DEFAULT '[]',
    ADD COLUMN plan_hash text;
COMMENT ON COLUMN deployments.apps IS 'what became of each app; one that is not listed is unchanged';
COMMENT ON COLUMN deployments.plan_hash IS 'of what the commit would change, as reviews of it show it';

ALTER TABLE pull_requests
    ADD COLUMN plan_hash text,
    ADD COLUMN stale boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN pull_requests.stale IS 'what its plan was held against is another by now';
COMMENT ON COLUMN pull_requests.plan_hash IS 'of the plan that the comment shows';

CREATE TABLE reviewed_plans (
    source_id   uuid NOT NULL REFERENCES sources ON DELETE CASCADE,
    hash        text NOT NULL,
    reviewed_by text NOT NULL,
    reviewed_at timestamptz NOT NULL,
    PRIMARY KEY (source_id, hash)
);
COMMENT ON TABLE reviewed_plans IS 'plans of pull requests that were merged: commits of the same plan need no other word';
