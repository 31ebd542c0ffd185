"""Whole journeys: a platform started by its own command, called by the official SDK and by raw sockets."""
