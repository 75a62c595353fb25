"""Judge every installed engine."""
