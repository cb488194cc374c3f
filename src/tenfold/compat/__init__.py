"""The names of other libraries over our own, so that their users change one import."""
