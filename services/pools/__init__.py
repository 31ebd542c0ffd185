"""Pools: the model replicas, kept alive as Ray actors."""
