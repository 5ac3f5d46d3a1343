"""Write the minute card into docs/pilot.md from the checkpoints in docs/instructors.md: ``python tools/card.py``."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "pilot.md"
START, END = "<!-- written by tools/card.py -->\n", "<!-- end -->\n"


def checkpoints() -> dict[str, list[tuple[str, str, str]]]:
    """Return the guide's checkpoints of each lesson: the section, its minutes, and what is on the screen."""
    guide = (ROOT / "docs" / "instructors.md").read_text(encoding="utf-8")
    guide = guide.split("## Checkpoints\n")[1].split("\n## ")[0]
    parts = re.split(r"### (?:Lesson )?(\w+)\n", guide)[1:]
    row = re.compile(r"^\| (\d+) \| (\d+) \| .* \| (.*) \|$", flags=re.MULTILINE)
    return {name: row.findall(part) for name, part in zip(parts[::2], parts[1::2], strict=True)}


def page() -> str:
    """Return the page with a card: per lesson, the sections, then the exercises and the quiz."""
    rows = ["| lesson | section | planned | begun | ended |", "|---|---|---|---|---|"]
    for name, sections in checkpoints().items():
        rows += [f"| {name} | {section} | {minutes} | | |" for section, minutes, _ in sections]
        rows += [f"| {name} | exercises | | | |", f"| {name} | quiz | 4 | | |"]
    before, after = PAGE.read_text(encoding="utf-8").split(START)
    return "\n".join([before + START, *rows, "", END]) + after.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
