"""A real Kubernetes on this machine, and what runs on it: the control plane alone, and with a real node."""
