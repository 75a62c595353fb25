"""Engines that people run, one plain file each: what an outsider would write; most run in environments of their own."""
