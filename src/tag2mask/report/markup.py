"""HTML and SVG elements whose text is always escaped."""

from html import escape

VOID = {"img", "meta"}


class Markup(str):
    """Text that is HTML already; any other string is escaped where it enters an element."""

    __slots__ = ()


def el(tag: str, *children: str | None, **attributes: str | float | None) -> Markup:
    """Return an element; children and attributes that are None are left out.

    Args:
        tag: its name.
        children: `Markup` as it is, other strings escaped.
        attributes: of the element; ``class_`` is ``class``, other underscores are hyphens.
    """
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    opening = tag + "".join(f' {key}="{escape(str(value))}"' for key, value in given.items())
    if tag in VOID:
        return Markup(f"<{opening}>")
    return Markup(f"<{opening}>{join(*children)}</{tag}>")


def join(*children: str | None) -> Markup:
    """Return elements one after the other, plain strings escaped."""
    return Markup("".join(c if isinstance(c, Markup) else escape(c) for c in children if c is not None))


def note(text: str) -> Markup:
    """Return a line that says what is missing, or what to beware of."""
    return el("p", text, class_="note")


def table(head: list[str], rows: list[list[str]], classes: list[str | None] | None = None) -> Markup:
    """Return a table that scrolls in its box; columns with letters in them are set as text, others as numbers.

    Args:
        head: titles of the columns.
        rows: cells; a `Markup` cell that is a whole ``td`` stays as it is.
        classes: one a row, where some are set apart.
    """
    words = ["words" if any(map(_is_text, column)) else None for column in zip(*rows, strict=True)]
    words = words or [None] * len(head)
    lines = [
        el("tr", *map(_cell, row, words, range(len(row))), class_=kind)
        for row, kind in zip(rows, classes or [None] * len(rows), strict=True)
    ]
    titles = el("tr", *(el("th", title, scope="col", class_=kind) for title, kind in zip(head, words, strict=True)))
    return el("div", el("table", el("thead", titles), el("tbody", *lines)), class_="scroll")


def _is_text(cell: str) -> bool:
    return not isinstance(cell, Markup) and any(character.isalpha() for character in cell)


def _cell(cell: str, kind: str | None, number: int) -> Markup:
    if isinstance(cell, Markup) and cell.startswith("<td"):
        return cell
    return el("td", cell, class_=kind) if number else el("th", cell, scope="row")
