"""Model and fixed windows -> loss and bits per byte."""
