"""From raw scores to answers: one module of pure functions per task."""
