"""The rate limiter: whether a request fits the limits of its organisation and project."""
