"""Small real stand-ins for services, for tests of their callers."""
