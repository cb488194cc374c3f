"""Tables held as factors, of which rows are looked up."""
