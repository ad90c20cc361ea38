"""The language of studies: what makes no sense is refused in a sentence, and docs/study.md tells every key."""

import re

import pytest
from tiny_studies import book

from jaxshare.study import plan as planning
from jaxshare.types import RefusedError


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("source: s", "sauce: s", "sauce"),
        ('comparable: "yes"', "comparable: perhaps", "comparable=perhaps is not one of yes, partly, no"),
        ("compare: greater", "compare: larger", "compare=larger"),
        ("arms: [A, B], paper", "arms: [A, C], paper", "arm=C is not one of A, B"),
        ("arms: [A, B], paper", "arms: [A], paper", "two arms"),
        ("compare: greater", "compare: equal", "must have says and margin"),
        ("small: {seeds: 2", "small: {tasks: {chess: []}, seeds: 2", "small.tasks=chess"),
        ("    checks:\n      - {says: A − B, compare: greater, arms: [A, B], paper: above}\n", "", "it has no checks"),
        ("last: 1", "score: luck", "score=luck"),
    ],
)
def test_a_claim_that_makes_no_sense_is_refused(tmp_path, old, new, message):
    with pytest.raises(RefusedError, match=re.escape(message)):
        book(tmp_path, (old, new))


def test_settings_without_a_length_or_with_an_unknown_set_are_refused(tmp_path):
    with pytest.raises(RefusedError, match=r"total_env_steps and eval\.every"):
        planning.make(book(tmp_path, ("total_env_steps=64, ", "")), "lecture_tiny", "small")
    of_file = book(tmp_path, ("[algo=vdn]", "[algo=vdn, data=nothing, total_updates=5]"))
    with pytest.raises(RefusedError, match="data=nothing is not one of"):
        planning.make(of_file, "lecture_tiny", "small")
