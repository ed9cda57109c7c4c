-- What became of a branch's head apart from what is live, and traces of edited contents.

ALTER TABLE sources
    ADD COLUMN settled_head text,
    ADD COLUMN approved_commit text;
COMMENT ON COLUMN sources.settled_head IS 'the head that was dealt with: deployed, refused, held, or rolled back from; it is not deployed again by itself';
COMMENT ON COLUMN sources.approved_commit IS 'the commit that a person let go although it removes much';

-- The data of a deleted source's apps is kept like that of other pruned apps.
ALTER TABLE apps ALTER COLUMN source_id DROP NOT NULL;
ALTER TABLE apps DROP CONSTRAINT apps_source_id_fkey;
ALTER TABLE apps ADD CONSTRAINT apps_source_id_fkey FOREIGN KEY (source_id) REFERENCES sources ON DELETE SET NULL;
ALTER TABLE apps ADD CONSTRAINT apps_live_have_source CHECK (source_id IS NOT NULL OR pruned_at IS NOT NULL);

CREATE FUNCTION note_content_edit() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    seq bigint;
BEGIN
    IF current_setting('picloud.applying', true) = 'on' THEN
        RETURN NULL;
    END IF;
    UPDATE live_state SET edits = edits + 1 RETURNING generation + edits INTO seq;
    EXECUTE format('UPDATE apps SET touched = $1 WHERE id IN (SELECT app_id FROM %I WHERE blob_id IN ($2, $3))', TG_ARGV[0])
        USING seq, OLD.blob_id, NEW.blob_id;
    PERFORM pg_notify('picloud_edited', '');
    RETURN NULL;
END
$$;

CREATE TRIGGER note_edit AFTER UPDATE ON script_blobs FOR EACH ROW EXECUTE FUNCTION note_content_edit('app_scripts');
CREATE TRIGGER note_edit AFTER UPDATE ON static_blobs FOR EACH ROW EXECUTE FUNCTION note_content_edit('app_static_files');
