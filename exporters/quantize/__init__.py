"""From a float artifact to an int8 one that is measured to be as good and faster, or to none."""
