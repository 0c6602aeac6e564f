"""Training: configs, suites, steps, checkpoints and run directories."""
