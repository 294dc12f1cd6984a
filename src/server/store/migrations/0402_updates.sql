-- What forges should show, of whatever kind, and what they accepted. Nothing was released with the narrower table:
-- all is derived anew.

DROP TABLE reports;
CREATE TABLE reports (
    project TEXT NOT NULL REFERENCES projects (id),
    -- What tells it from all else that is shown of the project.
    slot TEXT NOT NULL,
    -- Null where it is about none.
    commit_id TEXT,
    -- JSON of what should stand there, and of what the forge took last.
    desired TEXT NOT NULL,
    accepted TEXT,
    -- What the forge calls it: it is edited in place.
    remembered TEXT,
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
    PRIMARY KEY (project, slot)
);
CREATE INDEX reports_open ON reports (open, project);
CREATE INDEX reports_of_commit ON reports (project, commit_id);

DELETE FROM reported_pipelines;

-- What a pull request changes in notebooks, as Markdown; empty where it changes none.
CREATE TABLE notebook_diffs (
    pipeline TEXT NOT NULL PRIMARY KEY REFERENCES pipelines (id),
    markdown TEXT NOT NULL
);
