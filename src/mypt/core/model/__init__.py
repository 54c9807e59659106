"""Batch -> logits -> loss. Knows neither text nor data."""
