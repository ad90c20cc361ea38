"""How lines of jaxshare read, counted: what each rule finds in each file.

    python tests/style.py            what is over, and the totals

No rule may find anything, but for imports inside of functions, of heavy and optional packages, annotations that say
`Any`, where JAX and others are untyped, and long statements: a few of them in the whole package.
"""

import argparse
import ast
import io
import pathlib
import re
import sys
import tokenize

ROOT = pathlib.Path(__file__).parent.parent
COLUMNS = 100
FILE_LINES = 300
ARGUMENTS = 6
NODES = 60  # of one statement; what a reader takes in at once
USUAL_NODES = 35  # of 99 in 100 statements
ARRAYS = {"Array", "jax.Array", "np.ndarray"}
SHAPE = re.compile(r"\[[^\]]*\]")  # [T, B] or [], of a scalar
BODY_LINES = 15  # of a function that needs a comment
INNER_IMPORTS = 40  # in the whole package
LOOSE_SHARE = 0.05  # of all annotations
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


def sizes(source):
    """Syntax nodes of every simple statement."""
    simple = [n for n in source.nodes if isinstance(n, ast.stmt) and not isinstance(n, COMPOUND)]
    return [sum(1 for _ in ast.walk(node)) for node in simple]


def dense_statements(source):
    """Simple statements of more than NODES syntax nodes."""
    return sum(size > NODES for size in sizes(source))


def long_statements(source):
    """Simple statements of more than USUAL_NODES syntax nodes."""
    return sum(size > USUAL_NODES for size in sizes(source))


def shapeless_functions(source):
    """Public functions and methods that are given or return arrays and state the shape of none."""
    bodies = [source.tree.body, *(node.body for node in source.tree.body if isinstance(node, ast.ClassDef))]
    public = [n for body in bodies for n in body if isinstance(n, FUNCTIONS) and not n.name.startswith("_")]
    return sum(_has_arrays(node) and not _states_shape(source, node) for node in public)


def _has_arrays(function):
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    notes = [function.returns, *(argument.annotation for argument in arguments)]
    return any(note is not None and ast.unparse(note) in ARRAYS for note in notes)


def _states_shape(source, function):
    """In the docstring, or in comments beside the arguments."""
    head = source.lines[function.lineno - 1 : function.body[0].lineno]
    comments = [line.partition("#")[2] for line in head]
    return any(SHAPE.search(text) for text in (ast.get_docstring(function) or "", *comments))


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
    dense_statements, long_statements, shapeless_functions, uncommented_functions, ignores, loose_annotations,
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


def statements():
    """How many simple statements there are in the package."""
    return sum(len(sizes(Source(path))) for path in (ROOT / "jaxshare").rglob("*.py"))


def annotations():
    """How many annotations there are in the package, so that those that say `Any` are a share."""
    count = 0
    for path in (ROOT / "jaxshare").rglob("*.py"):
        nodes = Source(path).nodes
        count += sum(isinstance(n, ast.arg) and n.annotation is not None for n in nodes)
        count += sum(isinstance(n, FUNCTIONS) and n.returns is not None for n in nodes)
        count += sum(isinstance(n, ast.AnnAssign) for n in nodes)
    return count


def most():
    """{rule: how often in the whole package}; of all others none."""
    return {
        "inner_imports": INNER_IMPORTS,
        "loose_annotations": int(LOOSE_SHARE * annotations()),
        "long_statements": statements() // 100,
    }


def over(now, allowed):
    """What is counted more often than is allowed, a line for each file."""
    lines = []
    for rule, by_file in now.items():
        if sum(by_file.values()) > allowed.get(rule, 0):
            lines += [f"{name}: {rule} {count}" for name, count in by_file.items()]
    return lines


def main():
    """Show."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    now = counts()
    lines = over(now, most())
    totals = {rule: sum(by_file.values()) for rule, by_file in now.items()}
    print("\n".join([*lines, ", ".join(f"{rule} {total}" for rule, total in totals.items())]))
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()
