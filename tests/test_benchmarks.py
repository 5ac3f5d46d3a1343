"""The benchmarks run on very little data, so that a renamed helper is noticed. The measurements are not checked."""

import re

import benchmarks.__main__ as bench
from benchmarks.measure import call

TINY = bench.Scale(rounds=1, rows=(9000, 10_000), world_rows=1)


def test_all_cases_run(monkeypatch):
    """Run each case once, in this process, because importing everything per case takes minutes."""
    ran = []

    def run(case, folder, **parameters):
        ran.append(case)
        return call(case, folder, parameters) | {"process": 0.0}

    ways = {case: (name, case, parameters) for name, case, parameters in reversed(bench.WAYS)}
    monkeypatch.setattr(bench, "WAYS", tuple(reversed(ways.values())))
    monkeypatch.setattr(bench, "run", run)
    text = bench.report(TINY, [1], ["threads", "processes"])
    assert re.findall("^## (.+)", text, flags=re.MULTILINE) == [
        "A part of a tile",
        "Class counts inside zones",
        "The cube of the world",
    ]
    assert {f"tile:{case}" for case in ways} <= set(ran)
    for way in (*(name for name, _, _ in bench.WAYS), "1 threads", "1 processes"):
        assert f"| {way} | " in text
    assert "**A quick run**" in text
