-- What waits, in the order of its turns, out of one index: a pass of the scheduler reads all of these ids.

DROP INDEX jobs_queued;
DROP INDEX jobs_by_word;
CREATE INDEX jobs_by_word ON jobs (word, priority DESC, id);
