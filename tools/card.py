"""Write the minute card into docs/pilot.md from the checkpoints in docs/instructors.md: ``python tools/card.py``."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "pilot.md"
START, END = "<!-- written by tools/card.py -->\n", "<!-- end -->\n"


def card() -> str:
    """Return a table: per lesson, the sections with their planned minutes, then the exercises and the quiz."""
    guide = (ROOT / "docs" / "instructors.md").read_text(encoding="utf-8")
    guide = guide.split("## Checkpoints\n")[1].split("\n## ")[0]
    rows = ["| lesson | section | planned | begun | ended |", "|---|---|---|---|---|"]
    parts = re.split(r"### (?:Lesson )?(\w+)\n", guide)[1:]
    for name, part in zip(parts[::2], parts[1::2], strict=True):
        for section, minutes in re.findall(r"^\| (\d+) \| (\d+) \|", part, flags=re.MULTILINE):
            rows.append(f"| {name} | {section} | {minutes} | | |")
        rows += [f"| {name} | exercises | | | |", f"| {name} | quiz | 4 | | |"]
    return "\n".join(rows) + "\n"


def page() -> str:
    """Return the page with a card of the current checkpoints."""
    before, after = PAGE.read_text(encoding="utf-8").split(START)
    return f"{before}{START}\n{card()}\n{END}{after.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
