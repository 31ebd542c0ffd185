"""What a model answers: held to a form while it is generated, and read for the calls of tools that are in it."""
