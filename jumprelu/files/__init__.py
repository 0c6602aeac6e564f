"""File formats and the reading, writing and checking that all rooms share."""
