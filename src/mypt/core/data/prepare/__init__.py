"""Documents -> shards on disk: planned, journaled, in any number of processes, with the same bytes."""
