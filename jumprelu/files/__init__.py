"""File formats, and reading, writing and checks for the whole package."""
