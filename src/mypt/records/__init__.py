"""Ground floor: every JSON file we read or write is one pydantic class. No torch, no numpy."""
