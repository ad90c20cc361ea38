"""How lines of the package read: rules without exceptions."""

import pathlib
import textwrap

import pytest
import style


def test_no_rule_is_broken():
    assert style.over(style.counts(), style.most()) == []


CASES = {
    "long_lines": f"x = '{'x' * 100}'",
    "long_files": "\n" * 301,
    "pairs": "a, b = c, d",
    "named_lambdas": "f = lambda x: x",
    "nested_comprehensions": "x = [[a for a in b] for b in c]",
    "banned_names": "def f():\n    found = 1",
    "many_arguments": "def f(a, b, c, d, e, g, h): pass",
    "inner_imports": "def f():\n    import json",
    "dense_statements": f"x = {' + '.join(['f(a)'] * 20)}",
    "long_statements": f"x = {' + '.join(['f(a)'] * 9)}",
    "shapeless_functions": "def f(x: Array): pass",
    "uncommented_functions": "def f():\n" + "    x = 1\n" * 15,
    "ignores": "x = 1  # type: ignore[misc]",
    "loose_annotations": "def f(x: Any): pass",
}
FINE = '''
    a, b = b, a
    a, b = f(x)
    g = [a for a in b]

    def f(self, a, b, c, d, e, g):
        # why
        x = 1

    def h(x: Array):
        """Sum of x [T, B]."""
    '''


def counted(tmp_path: pathlib.Path, rule: str, text: str) -> int:
    path = tmp_path / "file.py"
    path.write_text(text)
    return getattr(style, rule)(style.Source(path))


@pytest.mark.parametrize("rule", [rule.__name__ for rule in style.RULES])
def test_every_rule_finds_what_it_is_about(tmp_path, rule):
    assert counted(tmp_path, rule, CASES[rule]) == 1
    assert counted(tmp_path, rule, textwrap.dedent(FINE)) == 0


def test_what_is_over_is_named():
    now = {"pairs": {"a.py": 3}, "inner_imports": {"a.py": 3, "b.py": 1}, "ignores": {}}
    assert style.over(now, {"inner_imports": 4}) == ["a.py: pairs 3"]
    assert style.over(now, {"pairs": 3, "inner_imports": 3}) == ["a.py: inner_imports 3", "b.py: inner_imports 1"]
