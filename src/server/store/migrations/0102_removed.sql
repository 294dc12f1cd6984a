-- When a person took the agent out of the lists; null: nobody did. Its row stays: attempts are told with its name.
ALTER TABLE agents ADD COLUMN removed_at BIGINT;
