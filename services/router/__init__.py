"""The router: which replica serves a request."""
