"""The objects of the public API: suites, SAEs, language models, activations.

`import jumprelu` has their names; nothing here is imported before it is used.
"""
