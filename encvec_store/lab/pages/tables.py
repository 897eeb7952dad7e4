"""Tables that scroll sideways where a screen is narrow."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape

__all__ = ["framed"]


def framed(titles: Sequence[str], lines: Sequence[str], text: Collection[int]) -> str:
    """Return a table of lines `<tr>...</tr>`; empty where there are none.

    Args:
        titles: heads of the columns.
        lines: with a <th> or <td class="text"> in the columns of text.
        text: positions of these columns: their heads stand to the left as their cells do.
    """
    if not lines:
        return ""
    head = "".join(
        f'<th class="text">{escape(title)}</th>' if place in text else f"<th>{escape(title)}</th>"
        for place, title in enumerate(titles)
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
