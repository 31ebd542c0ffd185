"""Tests; the folders repeat the paths of the code they test."""
