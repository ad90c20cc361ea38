"""Docstrings of jaxshare as Markdown and as reStructuredText.

They are plain text: what is indented is an equation or code, a line that begins with `name:` is about an argument, and
single backticks are code.
"""

import inspect
import re

ARGUMENT = re.compile(r"^[A-Za-z_]\w*(?:, [A-Za-z_]\w*)*: ")
URL = re.compile(r"https?://[^\s)]*[^\s).,;]")


def blocks(text):
    """(kind, lines) for each block of a docstring: text, code or arguments."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(text))
    for paragraph in paragraphs:
        lines = paragraph.splitlines()
        code = [line for line in lines if line.startswith("    ")]
        if code and code == lines:
            yield "code", _without_margin(lines)
        elif code:  # a sentence with an equation below it
            first = lines.index(code[0])
            if first:
                yield from _of_text(lines[:first])
            last = first
            while last < len(lines) and lines[last].startswith("    "):
                last += 1
            yield "code", _without_margin(lines[first:last])
            if last < len(lines):
                yield from blocks("\n".join(lines[last:]))
        else:
            yield from _of_text(lines)


def _without_margin(lines):
    """Equations from the first column on; their numbers, which stand far to the right, come nearer."""
    return [re.sub(r"   +(?=\((?:eqs?|secs?|TD|Peng|fig)\b)", "   ", line[4:]) for line in lines]


def _of_text(lines):
    """Sentences, and lists of arguments."""
    starts = [i for i, line in enumerate(lines) if ARGUMENT.match(line) and not line.startswith("Departures")]
    if not starts:
        yield "text", lines
        return
    if starts[0]:
        yield "text", lines[: starts[0]]
    items = []
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        items.append(" ".join(lines[start:end]))
    yield "arguments", items


def markdown(text):
    """A docstring as Markdown."""
    parts = []
    for kind, lines in blocks(text):
        if kind == "code":
            parts.append("```text\n" + "\n".join(lines) + "\n```")
        elif kind == "arguments":
            parts.append("\n".join(f"* {markdown_line(line)}" for line in lines))
        else:
            parts.append("\n".join(markdown_line(line) for line in lines))
    return "\n\n".join(parts) + "\n"


def markdown_line(line):
    """Text without meaning for Markdown, but for code and addresses."""
    pieces = re.split(r"(`[^`]*`|https?://[^\s)]*[^\s).,;])", line)
    for i, piece in enumerate(pieces):
        if URL.fullmatch(piece):
            pieces[i] = f"<{piece}>"
        elif not piece.startswith("`"):
            pieces[i] = re.sub(r"([\\*_<>\[\]$|#])", r"\\\1", piece)
    return "".join(pieces)


def restructured(text):
    """A docstring as lines of reStructuredText."""
    lines = []
    for kind, block in blocks(text):
        if kind == "code":
            lines += ["::", "", *(f"    {line}" for line in block), ""]
        elif kind == "arguments":
            lines += [*(f"* {restructured_line(line)}" for line in block), ""]
        else:
            lines += [*restructured_line("\n".join(block)).splitlines(), ""]
    return lines


def restructured_line(text):
    """Text without meaning for reStructuredText, but for code and addresses."""
    pieces = re.split(r"(`[^`]*`)", text)
    for i, piece in enumerate(pieces):
        if piece.startswith("`") and len(piece) > 2:
            pieces[i] = f"``{piece[1:-1]}``\\ "
        else:
            pieces[i] = re.sub(r"([\\*`|]|_(?=\W|$))", r"\\\1", piece)
    return "".join(pieces)


def for_autodoc(app, what, name, obj, options, lines):
    """Sphinx's autodoc asks for this with each docstring."""
    lines[:] = restructured("\n".join(lines))
