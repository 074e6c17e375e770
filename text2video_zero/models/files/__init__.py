"""What lies in files of models beside the weights themselves, and how one state of a file is told from another."""
