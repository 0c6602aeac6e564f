"""Blocks of activations, streamed from the language model or read from disk."""
