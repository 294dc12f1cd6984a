-- JSON of the GPUs that a host showed and does not show while its driver is at fault; null: it shows all that it has.
ALTER TABLE agents ADD COLUMN shown TEXT;
