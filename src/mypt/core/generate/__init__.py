"""Logits -> id -> text stream."""
