"""The contract of the repository: everything that users and other programs rely on, frozen before the redesign.

Golden files (`golden/*.json`) hold facts that must not change: commands and options, ids, schemas and the text for a seed.
Snapshots (`__snapshots__`) hold wording, which may change: a new wording is one diff to review.

After an intended change of a fact:      python -m properties.meta.contract commands   (or ids, schemas, texts; all by default)
After an intended change of a wording:   pytest properties/meta/contract/test_snapshots.py --snapshot-update
"""
