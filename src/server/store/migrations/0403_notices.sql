-- What receivers outside of forges are told of pipelines that ended.

CREATE TABLE notices (
    pipeline TEXT NOT NULL REFERENCES pipelines (id),
    -- The rule's name in the server's configuration.
    rule TEXT NOT NULL,
    -- The message as it is sent.
    body TEXT NOT NULL,
    -- 1 until it was taken, or given up.
    open BIGINT NOT NULL,
    made_at BIGINT NOT NULL,
    taken_at BIGINT,
    tries BIGINT NOT NULL,
    next_try BIGINT NOT NULL,
    -- Why it was not taken the last time.
    problem TEXT,
    PRIMARY KEY (pipeline, rule)
);
CREATE INDEX notices_open ON notices (rule, made_at) WHERE open = 1;

-- When it was seen that a pipeline is over, and written down who is to be told. Null: it goes on.
ALTER TABLE pipelines ADD COLUMN told_at BIGINT;
-- Nobody wants to be told of what ended long ago.
UPDATE pipelines SET told_at = created_at WHERE NOT EXISTS
    (SELECT 1 FROM jobs WHERE jobs.pipeline = pipelines.id AND jobs.finished_at IS NULL);
CREATE INDEX pipelines_untold ON pipelines (id) WHERE told_at IS NULL;

-- Until when a project's forge asked to be left alone.
ALTER TABLE projects ADD COLUMN forge_rests_until BIGINT;
-- When its forge was last asked which pull requests are open.
ALTER TABLE projects ADD COLUMN requests_listed_at BIGINT;

-- 1 where the pipeline file lets what is newer end what runs.
ALTER TABLE pipelines ADD COLUMN supersede_running BIGINT NOT NULL DEFAULT 0;
