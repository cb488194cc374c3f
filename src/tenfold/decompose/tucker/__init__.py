"""Tucker: a core and a basis for each mode."""
