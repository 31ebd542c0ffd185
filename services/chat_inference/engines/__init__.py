"""The adapters between a replica and the program that runs its model. Only these may import torch or vllm."""
