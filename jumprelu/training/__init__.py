"""Training: config, suite, steps, checkpoints, run directories."""
