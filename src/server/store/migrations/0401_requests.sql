-- Pull requests as their forges told of them, and which untrusted commits people have approved.

CREATE TABLE pull_requests (
    project TEXT NOT NULL REFERENCES projects (id),
    number BIGINT NOT NULL,
    -- The head that was told; what is planned is asked of git.
    head TEXT NOT NULL,
    head_branch TEXT NOT NULL,
    base_branch TEXT NOT NULL,
    title TEXT NOT NULL,
    author TEXT,
    -- 1 where it comes from another repository.
    fork BIGINT NOT NULL,
    -- 1 until it is merged or given up.
    open BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (project, number)
);

CREATE TABLE approvals (
    project TEXT NOT NULL REFERENCES projects (id),
    commit_id TEXT NOT NULL,
    approved_by TEXT NOT NULL,
    approved_at BIGINT NOT NULL,
    PRIMARY KEY (project, commit_id)
);

-- 1 of what a person asked for, which is done once; other deliveries only say where to look.
ALTER TABLE deliveries ADD COLUMN asks BIGINT NOT NULL DEFAULT 0;
