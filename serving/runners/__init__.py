"""Who computes: this process, a GPU that is borrowed for each job, or workers of a Ray cluster."""
