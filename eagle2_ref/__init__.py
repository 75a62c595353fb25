"""How EAGLE-2 decodes, in files to be read in this order: tree, coins, sampling, rules, head, target, drafters, decode, batch."""

__version__ = "0.1.0"
