"""Reading tokens in one call, and finding the likeliest: C that is compiled for this processor when first wanted."""
