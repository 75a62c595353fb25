"""Benchmarks: `eagle2 bench` times the reference decoder, `eagle2 compare` compares methods on one network.

Speeds are ratios of interleaved runs in one process; counts repeat exactly. Wall clock never decides an exit code.

settings, record               the settings of a run, and the record of what it measured
bench, comparison              the measurements of each command, in their order
runner, arms, methods          interleaved timed texts, and what is timed
prompts, chat, presets         prompts, question files, chat formats, models of the paper
step_profile, pass_latency, roofline, batches, budgets, reliability, calibrate, tune, verdict_latency, greedy_equality
                               one measurement each
figures, regression, counts    from timed texts to figures, and what must not change
published                      figures that others published
result_tables, result_plots, pages
                               what a reader sees
"""
