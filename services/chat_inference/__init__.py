"""A replica of a chat model: an engine behind the ChatInferenceService contract."""
