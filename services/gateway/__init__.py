"""The HTTP edge: OpenAI's endpoints, and the pipeline that every run of a model goes through."""
