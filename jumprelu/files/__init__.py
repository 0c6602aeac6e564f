"""Formats of files, and the checks that every reader needs."""
