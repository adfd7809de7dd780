"""Draw the validation curves of `training.md` from the `validation.jsonl` of each run, kept in `docs/runs`.

    python docs/make_curves.py

Steps are turned into training clips by the batch in the run's config, so that runs stand one after the other.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
OUT = HERE / "images" / "validation.svg"
# each began from the weights of the one before
CHAIN = ("guided_head", "guided", "guided_tight", "guided_settle", "guided_firm")
FIGURES = {"J": "#1b6ca8", "F": "#c0561e", "AUC": "#3b8c3b"}
WIDTH, HEIGHT, MARGIN = 720, 320, 46
LOW, HIGH = 0.6, 0.9


def points() -> list[tuple[str, int, dict[str, float]]]:
    """(run, clips seen in all, figures) of every validation."""
    found, before = [], 0
    for run in CHAIN:
        config = tomllib.loads((HERE.parent / "configs" / f"{run}.toml").read_text())
        rows = [json.loads(line) for line in (HERE / "runs" / f"{run}.jsonl").read_text().splitlines()]
        batch = config["optim"]["batch"]
        found += [(run, before + row["step"] * batch, row) for row in rows]
        before += rows[-1]["step"] * batch
    return found


def main() -> None:
    """Write the picture."""
    found = points()
    last = found[-1][1]

    def at(clips: float, value: float) -> tuple[float, float]:
        x = MARGIN + clips / last * (WIDTH - 2 * MARGIN)
        return round(x, 1), round(HEIGHT - MARGIN - (value - LOW) / (HIGH - LOW) * (HEIGHT - 2 * MARGIN), 1)

    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for i in range(7):
        value = LOW + i * (HIGH - LOW) / 6
        (x, y), (end, _) = at(0, value), at(last, value)
        parts.append(f'<path d="M{x} {y}H{end}" stroke="#ddd"/>')
        parts.append(f'<text x="{x - 6}" y="{y + 4}" text-anchor="end">{value:.2f}</text>')
    for name, colour in FIGURES.items():
        line = [at(clips, row[name]) for _, clips, row in found if row[name] >= LOW]
        path = " ".join(f"{x},{y}" for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{line[-1][0] + 5}" y="{line[-1][1] + 4}" fill="{colour}">{name}</text>')
    for run in CHAIN:
        clips = max(c for r, c, _ in found if r == run)
        x, y = at(clips, LOW)
        parts.append(f'<path d="M{x} {y}V{MARGIN}" stroke="#999" stroke-dasharray="3 3"/>')
        parts.append(f'<text x="{x - 4}" y="{MARGIN - 8}" text-anchor="end">{run}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 12}" text-anchor="middle">training clips, up to {last:,}</text>')
    style = 'xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="11"'
    OUT.write_text(f'<svg {style} viewBox="0 0 {WIDTH} {HEIGHT}">' + "".join(parts) + "</svg>\n")
    print(f"Wrote {OUT}.")


if __name__ == "__main__":
    main()
