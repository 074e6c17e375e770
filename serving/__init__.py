"""Who runs a job, which models are offered, and where finished videos go. Knows no screen."""
