"""Living floor, the engine: does the work, yields events, never prints, never exits."""
