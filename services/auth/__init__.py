"""Who may call: organisations, projects and keys."""
