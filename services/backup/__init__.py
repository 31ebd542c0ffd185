"""Backup and restore of everything that cannot be made again: the database, usage on its way there, small files."""
