"""How fast it decodes, and what it counts: ratios of interleaved runs in one process, and counts that repeat exactly.

Read in this order: settings, record (what travels), arms, run; steps, bound, costs, budgets (where the time goes); figures (from
calls to numbers); against, counts (what must not move); show, pictures, page, readme (what is drawn). Wall clock gates nothing.
"""
