-- What waits, in the order of its turns, out of one index: a pass of the scheduler reads all of these ids.

DROP INDEX jobs_queued;
DROP INDEX jobs_by_word;
CREATE INDEX jobs_by_word ON jobs (word, priority DESC, id);
-- Behind a long queue of their project those that wait for others are few.
CREATE INDEX jobs_blocked ON jobs (project, id) WHERE word = 'blocked';
