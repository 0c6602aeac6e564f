"""The page on which the latents of a suite are looked at.

A page shows a folder of features (`jumprelu.features`) and the results of its
SAEs. It consists of a bundled script and stylesheet (`static/`, built from
`web/`), an index in JSON, and binary containers (`container`) with one table
per member and the latents in shards. `write` writes it as a file that holds all
containers, or as a folder whose containers are loaded on demand. Both are
opened from the disk: the page loads nothing over the network.
"""
