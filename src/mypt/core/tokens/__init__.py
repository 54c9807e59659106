"""Text -> ids. Knows no model, no torch."""
