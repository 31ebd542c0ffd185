"""What was answered: stored chat completions, and the first answers of requests with an idempotency key."""
