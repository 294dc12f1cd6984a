-- Why what people ask for at the project's forge is not obeyed, where it is the token's fault.
ALTER TABLE projects ADD COLUMN commands_problem TEXT;
