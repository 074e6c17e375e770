"""Where the subject is."""
