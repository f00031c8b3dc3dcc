"""`sparseboard doctor`: is everything there that Sparseboard needs, and what to do where it is not."""
