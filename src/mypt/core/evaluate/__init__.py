"""Model and windows of text -> loss, bits per byte and accuracy."""
