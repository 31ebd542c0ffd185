"""The keys of projects and organisations, and the service accounts that own some of them."""
