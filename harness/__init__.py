"""How a decoder is judged: implementations, laws, statistics, evidence, verdicts, reports."""
