-- What the scheduler looks at, so that a pass reads no whole specs.

-- JSON of what a host must have; equal demands are equal texts. Null in rows of earlier versions: the spec says it.
ALTER TABLE jobs ADD COLUMN demand TEXT;
-- How long it may run, in milliseconds.
ALTER TABLE jobs ADD COLUMN timeout BIGINT;
-- Hash of image and lock: jobs with the same one find their environment on the same hosts.
ALTER TABLE jobs ADD COLUMN environment TEXT;
-- Its concurrency group.
ALTER TABLE jobs ADD COLUMN concurrency TEXT;
CREATE INDEX jobs_queued ON jobs (priority, id) WHERE word = 'queued';
CREATE INDEX jobs_of_group ON jobs (project, concurrency) WHERE concurrency IS NOT NULL;

-- What an attempt had, past its booking: what projects used.
ALTER TABLE attempts ADD COLUMN gpus BIGINT NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN cpu_millis BIGINT NOT NULL DEFAULT 0;
CREATE INDEX attempts_by_end ON attempts (finished_at) WHERE finished_at IS NOT NULL;

ALTER TABLE bookings ADD COLUMN disk BIGINT NOT NULL DEFAULT 0;

-- What a project may use; null: all there is.
ALTER TABLE projects ADD COLUMN most_gpus BIGINT;
ALTER TABLE projects ADD COLUMN most_gpu_hours BIGINT;

-- Every call of an agent looks for these.
CREATE INDEX agents_by_secret ON agents (secret_hash);
CREATE INDEX bookings_of_agent ON bookings (agent);
