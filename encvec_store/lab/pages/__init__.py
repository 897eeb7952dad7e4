"""Pages that stand alone: the shell, the style sheet and charts that the reports share.

shell      an HTML document that loads nothing and runs nothing, written whole or not at all
charts     bars and plots as SVG
tables     rows under heads that stand as their columns do
style      colours for light and dark, sizes for telephones and screens
"""

from __future__ import annotations
