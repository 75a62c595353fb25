"""Draws the imports between the parts of the repository as a matrix: `python docs/import_matrix.py [FILE.svg]`.

Rows import columns. The parts are sorted so that every import points to an earlier part; a cell above the diagonal is therefore
part of a cycle, or points up, and is drawn in red.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

LAYERS = ("eagle2_ref", "fixtures", "harness", "properties")
"""From the bottom up, as in the import contracts of pyproject.toml."""


def part(module: str) -> str:
    """The part a module belongs to: a package or file of eagle2_ref and harness, or all of fixtures or properties."""
    names = module.split(".")
    if names[0] == "properties":
        return "properties.meta" if names[1:2] == ["meta"] else "properties"
    return names[0] if names[0] == "fixtures" else ".".join(names[:2])


def import_counts() -> Counter[tuple[str, str]]:
    """Number of import statements of each (importing part, imported part)."""
    import grimp

    graph = grimp.build_graph(*LAYERS, cache_dir=None, exclude_type_checking_imports=True)
    pairs = ((part(a), part(b)) for a in graph.modules for b in graph.find_modules_directly_imported_by(a))
    return Counter((a, b) for a, b in pairs if a != b)


def bottom_up(counts: Counter[tuple[str, str]]) -> list[str]:
    """All parts: layer by layer, and within a layer a part after those that it imports, as far as there are no cycles."""
    order: list[str] = []
    for layer in LAYERS:
        left = sorted({name for pair in counts for name in pair if name.partition(".")[0] == layer})
        while left:
            imports = {name: sum((name, other) in counts for other in left) for name in left}
            imported = {name: sum((other, name) in counts for other in left) for name in left}
            order.append(min(left, key=lambda name: (imports[name] > 0, imports[name] - imported[name], name)))
            left.remove(order[-1])
    return order


def draw_import_matrix(path: Path) -> None:
    """Write the matrix as an SVG file."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    counts = import_counts()
    order = bottom_up(counts)
    n = len(order)
    with mpl.rc_context({"svg.hashsalt": "imports", "font.size": 7, "svg.fonttype": "path"}):
        figure, axes = plt.subplots(figsize=(0.19 * n + 1.8, 0.19 * n + 1.8))
        for (a, b), count in counts.items():
            row, column = order.index(a), order.index(b)
            color = "#c0392b" if column > row else "#2c5d8a"
            axes.add_patch(plt.Rectangle((column - 0.5, row - 0.5), 1, 1, color=color, alpha=min(1.0, 0.3 + count / 20), lw=0))
        axes.plot([-0.5, n - 0.5], [-0.5, n - 0.5], color="#999", lw=0.6)
        for i in range(1, n):
            if order[i].partition(".")[0] != order[i - 1].partition(".")[0]:
                axes.axhline(i - 0.5, color="#444", lw=0.8)
                axes.axvline(i - 0.5, color="#444", lw=0.8)
        axes.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5), aspect="equal", xlabel="is imported", ylabel="imports")
        axes.set_xticks(range(n), order, rotation=90)
        axes.set_yticks(range(n), order)
        axes.tick_params(length=0)
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    draw_import_matrix(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("docs/_generated/imports.svg"))
