"""How the container images are made: the base where no registry is, the build, and the list of what is inside."""
