"""Estimates of memory, time and cost, made before anything is started."""
