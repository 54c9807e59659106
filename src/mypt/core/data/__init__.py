"""Ids -> shards -> batches. Knows positions and seeds; knows neither model nor torch."""
