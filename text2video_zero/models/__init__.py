"""What can be loaded: records of checkpoints, the tables of known ones, the Hub, files, what fits what."""
