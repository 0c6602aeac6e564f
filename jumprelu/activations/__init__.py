"""Blocks of activations: from the language model as it runs, or from disk."""
