"""Array functions: pseudo-derivatives, and the steps of the fast backends."""
