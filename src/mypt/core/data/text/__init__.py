"""Files -> documents. Sources are found, cut into units of work, read, cleaned and given a side."""
