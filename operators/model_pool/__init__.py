"""The kind ModelPool, and the operator that keeps what runs as its objects say."""
