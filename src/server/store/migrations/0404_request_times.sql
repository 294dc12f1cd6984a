-- When a pull request changed last by its forge's clock, as it was told: what is older is not news. Null: nobody said.
ALTER TABLE pull_requests ADD COLUMN updated_at BIGINT;
