-- Pull requests, as far as they were dealt with: so that nothing is told twice, also after a restart.

CREATE TABLE pull_requests (
    source_id      uuid NOT NULL REFERENCES sources ON DELETE CASCADE,
    number         bigint NOT NULL,
    repository     text NOT NULL,
    title          text NOT NULL,
    head_branch    text NOT NULL,
    fork           text,
    fork_url       text,
    open           boolean NOT NULL,
    head           text NOT NULL,
    reported_head  text,
    approved_head  text,
    comment_id     text,
    comment_digest text,
    updated_at     timestamptz NOT NULL,
    PRIMARY KEY (source_id, number)
);
COMMENT ON COLUMN pull_requests.fork IS 'the repository that it comes from, where that is another';
COMMENT ON COLUMN pull_requests.reported_head IS 'the head that the forge was told the plan of';
COMMENT ON COLUMN pull_requests.approved_head IS 'the head of a fork that a person lets have a preview';

ALTER TABLE sources
    ADD COLUMN public_url text,
    ADD COLUMN deploy_reported text;
COMMENT ON COLUMN sources.public_url IS 'how the forge reaches this server, by its last signed delivery';
COMMENT ON COLUMN sources.deploy_reported IS 'the deployment and status that the forge was told last';
