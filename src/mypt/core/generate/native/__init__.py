"""Reading tokens in one call: read.c, compiled for this processor when it is first wanted."""
