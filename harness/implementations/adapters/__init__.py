"""Adapters for public engines, one file each, written as an outsider would write them; most run in the engine's environment."""
