-- What a run caused is found by the run.
CREATE INDEX runs_by_cause ON runs (cause) WHERE cause IS NOT NULL;
