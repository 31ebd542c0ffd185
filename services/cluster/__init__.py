"""What a process asks of the Kubernetes that it runs on."""
