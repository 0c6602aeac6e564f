"""Array functions with pseudo-derivatives."""
