"""Why storage refuses to start: a message for the operator, not a fault for a client."""


class StartError(Exception):
    """The database cannot be used; the message says what is wrong and what to do about it."""
