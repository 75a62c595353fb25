"""Every method of the family beside the others: on the same prompts, and beside what is published.

Read in this order: settings, record (what travels), arms (who is compared), run; parting (are all texts the same); figures (from
calls to numbers); words, show, pictures, page, readme (what is drawn). Of published models: presets, chat, questions, published.
The timing is harness/bench's.
"""
