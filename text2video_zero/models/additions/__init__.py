"""What is added to a model: LoRAs to its weights, textual inversions to its words."""
