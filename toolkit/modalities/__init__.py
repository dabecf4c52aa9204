"""Text and images: how examples are loaded, made into model inputs, batched and shown. One object per modality."""
