"""/v1/organization/...: what an admin key administers, as OpenAI's admin API has it."""
