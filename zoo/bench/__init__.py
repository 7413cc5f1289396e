"""``zoo bench``: files, measured side by side in processes of their own, and what was found as a record."""
