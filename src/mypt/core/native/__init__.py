"""C for this processor: compiled when it is first wanted, compared with what it is to compute, and kept."""
