"""Estimates of a run's memory, time and cost before it starts, without TPUs."""
