"""What several tasks need for training and evaluation."""
