"""Networks that no framework ships, one file each: a builder per framework and the map between their weights."""
