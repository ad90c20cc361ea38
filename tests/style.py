"""How lines of jaxshare read, counted: what each rule finds in each file, and what is still allowed.

    python tests/style.py            what is over its allowance, and what has become better
    python tests/style.py --write    lower the allowances to what there is now; none is ever raised

The allowances are in `tests/golden/style.json`. A new file has none.
"""

import argparse
import ast
import io
import json
import pathlib
import sys
import tokenize

ROOT = pathlib.Path(__file__).parent.parent
FILE = ROOT / "tests" / "golden" / "style.json"
COLUMNS = 100
FILE_LINES = 300
ARGUMENTS = 6
NODES = 60  # of one statement; what a reader takes in at once
BODY_LINES = 15  # of a function that needs a comment
BANNED = {"found", "own", "more", "kept", "seen", "one", "shown", "said", "given", "made", "judged"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
COMPOUND = (*FUNCTIONS, ast.ClassDef, ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match)


class Source:
    """One file, parsed once."""

    def __init__(self, path):
        self.text = path.read_text()
        self.lines = self.text.splitlines()
        self.tree = ast.parse(self.text)
        self.nodes = list(ast.walk(self.tree))
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        self.comments = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}

    def functions(self):
        """All functions and methods."""
        return [node for node in self.nodes if isinstance(node, FUNCTIONS)]


def long_lines(source):
    """Lines of more than COLUMNS characters."""
    return sum(len(line) > COLUMNS for line in source.lines)


def long_files(source):
    """Lines beyond FILE_LINES."""
    return max(0, len(source.lines) - FILE_LINES)


def pairs(source):
    """Assignments of two or more values at once, `a, b = x, y`; a swap is none."""
    return sum(isinstance(node, ast.Assign) and _is_pair(node) for node in source.nodes)


def _is_pair(node):
    target = node.targets[0]
    if not (isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)):
        return False
    names = {ast.unparse(part) for part in target.elts}
    return {ast.unparse(part) for part in node.value.elts} != names


def named_lambdas(source):
    """Lambdas that are bound to a name."""
    kinds = (ast.Assign, ast.AnnAssign)
    return sum(isinstance(n, kinds) and isinstance(n.value, ast.Lambda) for n in source.nodes)


def nested_comprehensions(source):
    """Comprehensions inside of another one."""
    outer = [node for node in source.nodes if isinstance(node, COMPREHENSIONS)]
    inner = {id(sub) for node in outer for sub in ast.walk(node) if sub is not node and isinstance(sub, COMPREHENSIONS)}
    return len(inner)


def banned_names(source):
    """Locals with a name that says nothing."""
    count = 0
    for function in source.functions():
        stored = {
            node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        count += len(stored & BANNED)
    return count


def many_arguments(source):
    """Functions with more than ARGUMENTS arguments, self not counted."""
    count = 0
    for function in source.functions():
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        count += len([a for a in arguments if a.arg not in ("self", "cls")]) > ARGUMENTS
    return count


def inner_imports(source):
    """Imports inside of functions."""
    inner = set()
    for function in source.functions():
        inner |= {id(node) for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)}
    return len(inner)


def dense_statements(source):
    """Simple statements of more than NODES syntax nodes."""
    simple = [n for n in source.nodes if isinstance(n, ast.stmt) and not isinstance(n, COMPOUND)]
    return sum(sum(1 for _ in ast.walk(node)) > NODES for node in simple)


def uncommented_functions(source):
    """Functions of BODY_LINES lines or more without any comment."""
    count = 0
    for function in source.functions():
        body = function.body[1:] if ast.get_docstring(function) else function.body
        if not body:
            continue
        lines = range(body[0].lineno, function.end_lineno + 1)
        count += len(lines) >= BODY_LINES and not source.comments & set(lines)
    return count


def ignores(source):
    """Lines that ask a type checker to look away."""
    return sum("# type: ignore" in line for line in source.lines)


def loose_annotations(source):
    """Annotations that say `Any`."""
    notes = [a.annotation for a in source.nodes if isinstance(a, ast.arg) and a.annotation]
    notes += [function.returns for function in source.functions() if function.returns]
    notes += [node.annotation for node in source.nodes if isinstance(node, ast.AnnAssign)]
    return sum(isinstance(note, ast.Name) and note.id == "Any" for note in notes)


RULES = (
    long_lines, long_files, pairs, named_lambdas, nested_comprehensions, banned_names, many_arguments, inner_imports,
    dense_statements, uncommented_functions, ignores, loose_annotations,
)  # fmt: skip


def counts():
    """{rule: {file: how often}} of all files of the package, zeros left out."""
    files = sorted((ROOT / "jaxshare").rglob("*.py"))
    sources = {str(path.relative_to(ROOT)): Source(path) for path in files}
    table = {}
    for rule in RULES:
        by_file = {name: rule(source) for name, source in sources.items()}
        table[rule.__name__] = {name: count for name, count in by_file.items() if count}
    return table


def allowances():
    """{rule: {file: how often}} of what may stay until its file is rewritten."""
    return json.loads(FILE.read_text())


def compare(now, allowed):
    """(what is over its allowance, what is below it), one line each."""
    over = []
    below = []
    for rule, by_file in now.items():
        for name in sorted({*by_file, *allowed.get(rule, {})}):
            count = by_file.get(name, 0)
            limit = allowed.get(rule, {}).get(name, 0)
            line = f"{name}: {rule} {count}, allowed {limit}"
            if count > limit:
                over.append(line)
            elif count < limit:
                below.append(line)
    return over, below


def lowered(now, allowed):
    """The allowances where they are above what there is, taken down to it."""
    table = {}
    for rule, by_file in allowed.items():
        limits = {name: min(limit, now[rule].get(name, 0)) for name, limit in by_file.items()}
        table[rule] = {name: limit for name, limit in limits.items() if limit}
    return table


def main():
    """Show, and lower."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="lower the allowances to what there is now")
    options = parser.parse_args()
    now = counts()
    over, below = compare(now, allowances())
    print("\n".join([*(f"over: {line}" for line in over), *(f"better: {line}" for line in below)]))
    totals = {rule: sum(by_file.values()) for rule, by_file in now.items()}
    print(", ".join(f"{rule} {total}" for rule, total in totals.items()))
    if options.write:
        FILE.write_text(json.dumps(lowered(now, allowances()), indent=1, sort_keys=True) + "\n")
    sys.exit(bool(over))


if __name__ == "__main__":
    main()
