"""Networks that look at pictures, and the tables made with them."""
