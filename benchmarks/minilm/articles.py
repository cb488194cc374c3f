"""Sentences of encyclopaedia articles, for text of a wide vocabulary."""

import bz2
import re
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

from sentences import distinct, whole

PACKAGE = "gensim"
DUMP = "test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
"""Two hundred articles of the English Wikipedia, in its package."""
LINK = re.compile(r"\[\[(?:[^|\[\]]*\|)?([^|\[\]]*)\]\]")
DROPPED = (
    re.compile(r"<!--.*?-->", re.DOTALL),
    re.compile(r"<ref[^>]*/>|<ref.*?</ref>", re.DOTALL),
    re.compile(r"\[https?:[^\]]*\]|<[^>]*>|'{2,}"),
)
NESTED = re.compile(r"\{\{[^{}]*\}\}|\{\|[^{}]*\|\}|\[\[(?:File|Image|Category):[^\[\]]*\]\]")


def articles() -> list[str]:
    """Their sentences, each once; the package is not imported.

    Raises:
        ModuleNotFoundError: if it is not installed.
    """
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ModuleNotFoundError("Install the text: pip install --no-deps gensim==4.4.0", name=PACKAGE)
    with bz2.open(Path(found.origin).parent / DUMP) as dump:
        tree = ElementTree.parse(dump)
    texts = (node.text or "" for node in tree.iter() if node.tag.endswith("}text"))
    return distinct(
        sentence for text in texts for line in plain(text).splitlines() for sentence in whole(line)
    )


def plain(text: str) -> str:
    """Wikitext without references, templates, tables and pictures; the words of links stay.

    >>> plain("'''Rust''' is [[iron oxide|an oxide]] {{cite|{{web}}}}of [[iron]].<ref>A book.</ref>")
    'Rust is an oxide of iron.'
    """
    text = unescape(text)
    for pattern in DROPPED:
        text = pattern.sub("", text)
    return LINK.sub(r"\1", _without_nested(text))


def _without_nested(text: str) -> str:
    """From the innermost outwards."""
    while (shorter := NESTED.sub("", text)) != text:
        text = shorter
    return text
