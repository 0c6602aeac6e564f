"""Plots: their style, and files with several panels."""
