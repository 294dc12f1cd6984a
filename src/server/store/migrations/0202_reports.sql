-- What forges should show, and what they accepted.

CREATE TABLE reports (
    project TEXT NOT NULL REFERENCES projects (id),
    commit_id TEXT NOT NULL,
    context TEXT NOT NULL,
    -- JSON of the status that should stand there, and of the one that the forge took last.
    desired TEXT NOT NULL,
    accepted TEXT,
    -- 1 where they differ.
    open BIGINT NOT NULL,
    -- 1 where nothing more is expected: such ones go first.
    is_final BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    accepted_at BIGINT,
    tries BIGINT NOT NULL,
    next_try BIGINT NOT NULL,
    -- Why the forge did not take it the last time.
    problem TEXT,
    PRIMARY KEY (project, commit_id, context)
);
CREATE INDEX reports_open ON reports (open, project);

-- Pipelines whose jobs are all over and whose statuses stand in the table above.
CREATE TABLE reported_pipelines (
    pipeline TEXT NOT NULL PRIMARY KEY REFERENCES pipelines (id)
);
