"""Billing: what every request used, made durable before anybody forgets it."""
