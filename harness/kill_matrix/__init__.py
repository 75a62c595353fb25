"""The kill matrix: every mutant and control of the gallery, checked by every property.

`stage` runs a check on the fastest pair that shows a fault, `matrix` runs the gallery, `signatures` stores how each mutant
behaves, for the diagnosis of faults.
"""
