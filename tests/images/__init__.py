"""How the container images are made."""
