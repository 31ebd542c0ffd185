"""Tests of Envoy's control plane, most of them with a real Envoy."""
