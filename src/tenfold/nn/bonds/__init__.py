"""What sits on the ranks of a weight: dropout, and gates with an l1 penalty."""
