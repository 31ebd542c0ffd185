"""The bodies that clients send, parsed: OpenAI's fields, checked one by one, with OpenAI's words for what is wrong."""
