"""Reports: every page, summary, terminal table and plot of the project is made here, from records alone.

    text.py tables.py plots.py trees.py   numbers and untrusted text; a table; plots; draft trees
    layout.py                             a page of sections, as HTML and as Markdown; templates/layout.html is the one layout
    cases.py sentences.py                 a record arranged for reading; its verdict in words
    verify.py junit.py                    `eagle2 verify`: page, summary, badge, junit.xml
    engines.py matrix.py unedited.py      one page of all engines; the kill matrix; enumerated third-party decoders

Nothing is judged here: verdicts are those of the record, and a record gives the same bytes on every machine. A new report is
a function from a record to a `layout.Page`; see the example there.
"""

from harness.report.verify import render

__all__ = ["render"]
