"""Tests of the images of requests."""
