"""Sample pictures to try networks on; each folder says in its SOURCES.md where they come from."""
