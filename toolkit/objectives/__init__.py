"""What pretraining predicts, one file each."""
