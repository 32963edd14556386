"""Draws docs/images/architecture.svg: the packages of the suite on their levels, and who imports whom.

    python scripts/draw_architecture.py            # writes the picture
    python scripts/draw_architecture.py --check    # exit code 1 where the picture is not the code's

Everything is read from the import statements, and nothing is imported.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "images" / "architecture.svg"
LEVELS = (
    ("core",),
    ("metrics", "vlm"),
    ("data", "nn"),
    ("datasets", "engine"),
    ("scaffold", "report"),
    ("probe", "study", "vqa"),
    ("cli", "methods"),
)
WORDS = {
    "core": "types, errors, files, weights, plug-ins",
    "metrics": "metrics, protocols, scoring",
    "vlm": "model clients, one ask loop",
    "data": "records, images, loaders, tasks",
    "nn": "networks that two methods share",
    "engine": "train, predict, score, record",
    "vqa": "questions about gaze, a task",
    "methods": "one file or folder a method",
    "datasets": "one file or folder a data set",
    "probe": "saliency splits by a prober",
    "study": "plans of many runs",
    "report": "boards, pages, paper tables",
    "scaffold": "packages for plug-ins",
    "cli": "one file a command",
}


def packages() -> dict[str, list[Path]]:
    """The Python files of each package."""
    found = {folder.name: folder for folder in (ROOT / "gazebench").iterdir() if (folder / "__init__.py").is_file()}
    found |= {name: ROOT / name for name in ("methods", "datasets")}
    return {name: sorted(folder.rglob("*.py")) for name, folder in found.items()}


def imports() -> Counter[tuple[str, str]]:
    """How many import statements lead from one package to another."""
    counted: Counter[tuple[str, str]] = Counter()
    for package, files in packages().items():
        for file in files:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gazebench"):
                    parts = node.module.split(".")
                    names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
                    counted.update((package, name) for name in names if name in WORDS and name != package)
    return counted


def direct(counted: Counter[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """The pairs that do not follow from others: who imports a package that imports a third may import the third."""
    below: dict[str, set[str]] = {}
    for one, other in counted:
        below.setdefault(one, set()).add(other)

    def reach(name: str) -> set[str]:
        return set().union(*({other} | reach(other) for other in below.get(name, ())))

    return {
        (one, other): count
        for (one, other), count in counted.items()
        if not any(other in reach(between) for between in below[one] - {other})
    }


def draw() -> str:
    """The picture as SVG: a box for each package, an arrow for each direct pair, thicker for more imports."""
    width, high, apart, gap = 214, 50, 26, 62
    across = max(len(level) for level in LEVELS)
    full = across * (width + apart) + apart
    centre: dict[str, tuple[float, float]] = {}
    for row, level in enumerate(reversed(LEVELS)):
        left = (full - len(level) * (width + apart) + apart) / 2
        for place, name in enumerate(level):
            centre[name] = (left + place * (width + apart) + width / 2, 30 + row * (high + gap) + high / 2)
    tall = 30 + len(LEVELS) * (high + gap) - gap + 30
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {full} {tall}" font-family="sans-serif" '
        'role="img" aria-label="Packages of gazebench and who imports whom">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#5b6b7a"/></marker></defs>',
        f'<rect width="{full}" height="{tall}" fill="#ffffff"/>',
    ]
    for (one, other), count in sorted(direct(imports()).items()):
        (x0, y0), (x1, y1) = centre[one], centre[other]
        down = y1 > y0
        start, end = (y0 + high / 2, y1 - high / 2) if down else (y0 - high / 2, y1 + high / 2)
        colour = "#5b6b7a" if down else "#c0392b"
        lines.append(
            f'<path d="M{x0:.0f} {start:.0f} C{x0:.0f} {(start + end) / 2:.0f} {x1:.0f} {(start + end) / 2:.0f} '
            f'{x1:.0f} {end:.0f}" fill="none" stroke="{colour}" stroke-opacity=".55" '
            f'stroke-width="{min(4.0, 0.8 + count / 8):.1f}" marker-end="url(#tip)">'
            f"<title>{one} imports {other}: {count}</title></path>"
        )
    for name, (x, y) in centre.items():
        fill = "#e8f4ea" if name in ("methods", "datasets") else "#eef3f8"
        text = f'<text x="{x:.0f}" text-anchor="middle" font-size'
        lines += [
            f'<rect x="{x - width / 2:.0f}" y="{y - high / 2:.0f}" width="{width}" height="{high}" rx="7" '
            f'fill="{fill}" stroke="#34495e"/>',
            f'{text}="15" y="{y - 4:.0f}" font-weight="600" fill="#1f2d3a">{name}</text>',
            f'{text}="11" y="{y + 15:.0f}" fill="#44525f">{WORDS[name]}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only tell whether the picture is up to date")
    missing = set(packages()) - {name for level in LEVELS for name in level}
    if missing:
        print(f"no level for {', '.join(sorted(missing))}: add them to LEVELS and WORDS", file=sys.stderr)
        return 1
    picture = draw()
    if parser.parse_args().check:
        current = PICTURE.read_text(encoding="utf-8") if PICTURE.is_file() else ""
        if current != picture:
            print(f"{PICTURE.relative_to(ROOT)} is out of date: run scripts/draw_architecture.py", file=sys.stderr)
            return 1
        return 0
    PICTURE.write_text(picture, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
