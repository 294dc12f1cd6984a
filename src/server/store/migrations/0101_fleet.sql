-- What people asked of agents, and what an attempt leaves before its end.

-- Who wants the agent to take nothing new, since when; null: nobody does.
ALTER TABLE agents ADD COLUMN drained_by TEXT;
ALTER TABLE agents ADD COLUMN drained_at BIGINT;
-- Who took its secret away; null: it is good.
ALTER TABLE agents ADD COLUMN revoked_by TEXT;

-- Why the attempt is to end so that its job goes on elsewhere; null: it is not.
ALTER TABLE attempts ADD COLUMN evicted_by TEXT;

-- The files that the next attempt of a job goes on from. They go when the job succeeded.
CREATE TABLE checkpoint_files (
    attempt TEXT NOT NULL REFERENCES attempts (id),
    path TEXT NOT NULL,
    digest TEXT NOT NULL REFERENCES blobs (digest),
    size BIGINT NOT NULL,
    PRIMARY KEY (attempt, path)
);
CREATE INDEX checkpoint_files_of_blob ON checkpoint_files (digest);
