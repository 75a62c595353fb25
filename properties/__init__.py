"""What must hold, a chapter a file. A property's id and requirement are the first words of its test's docstring."""
