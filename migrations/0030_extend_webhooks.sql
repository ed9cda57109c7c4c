-- A webhook's secret is replaced without a gap; old deliveries go by their age.

ALTER TABLE sources
    ADD COLUMN previous_webhook_secret bytea,
    ADD COLUMN forge_repository text;
COMMENT ON COLUMN sources.previous_webhook_secret IS 'still accepted while the forge is told the new one';
COMMENT ON COLUMN sources.forge_repository IS 'how the forge names the repository, as its last signed delivery said';

CREATE INDEX webhook_deliveries_by_time ON webhook_deliveries (received_at);
