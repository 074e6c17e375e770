"""Those who come over the net: what they may ask for, what they bring, and what they are told."""
