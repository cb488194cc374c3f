"""Any format by its network: alternation, Gauss–Newton steps, gradients; block terms."""
