-- A preview is a source of its own: planned, served and watched like any other, and never mixed up
-- with the apps of the source that it is made from.

ALTER TABLE sources
    ADD COLUMN preview_of uuid REFERENCES sources ON DELETE CASCADE,
    ADD COLUMN previews_since timestamptz;
COMMENT ON COLUMN sources.preview_of IS 'the source whose branch or pull request it shows';
COMMENT ON COLUMN sources.previews_since IS 'when its previews were switched on; branches that were there before count by their last commit';
CREATE INDEX sources_by_preview_of ON sources (preview_of) WHERE preview_of IS NOT NULL;

CREATE TABLE previews (
    source_id uuid PRIMARY KEY REFERENCES sources ON DELETE CASCADE,
    parent_id uuid NOT NULL REFERENCES sources ON DELETE CASCADE,
    reference text NOT NULL,
    slug      text NOT NULL,
    head      text NOT NULL,
    head_at   timestamptz NOT NULL,
    expired   boolean NOT NULL DEFAULT false,
    UNIQUE (parent_id, reference),
    UNIQUE (parent_id, slug)
);
COMMENT ON COLUMN previews.reference IS 'refs/heads/…, or refs/pull/N whatever the forge calls it';
COMMENT ON COLUMN previews.head_at IS 'when its newest commit was seen; it goes when that is long ago';
