"""Every method of the family beside the others: on the same prompts, and beside what is published."""
