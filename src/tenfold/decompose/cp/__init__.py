"""The canonical polyadic decomposition: sums of rank-one terms."""
