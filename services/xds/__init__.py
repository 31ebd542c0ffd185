"""Envoy's control plane: what the Envoys of the edge serve, made out of the gateways that there are."""
