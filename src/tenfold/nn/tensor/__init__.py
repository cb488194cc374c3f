"""One weight held as factors: the module, what it can be asked for, and its kin."""
