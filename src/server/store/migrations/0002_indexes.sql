-- Indexes for the loops: no pass reads a table that grows from its beginning.
CREATE INDEX attempts_open ON attempts (id) WHERE fate = 'open';
CREATE INDEX pipelines_of_project ON pipelines (project, id);
DROP INDEX jobs_by_name;
CREATE INDEX jobs_by_name ON jobs (project, name, id);
CREATE INDEX deliveries_by_time ON deliveries (project, received_at);
CREATE INDEX deliveries_unhandled ON deliveries (project) WHERE handled_at IS NULL;
