"""Sentences that are on every machine with the development extras: from docstrings, READMEs, descriptions."""

import ast
import random
import re
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

PACKAGES = (
    "alembic", "dask", "fsspec", "huggingface_hub", "jax", "joblib", "mpmath", "networkx", "scipy",
    "sqlalchemy", "sympy",
)  # fmt: skip
"""Docstrings of these are more text to tune on; none of them has its README among other sentences."""
READMES = (
    "accelerate", "array-api-compat", "hypothesis", "jaxtyping", "jinja2", "mypy", "numpy", "opt_einsum",
    "optuna", "pillow", "pre-commit", "pyarrow", "pytest", "pytest-xdist", "rich", "ruff", "safetensors",
    "scikit-learn", "torch", "transformers", "typer",
)  # fmt: skip
"""Distributions whose READMEs are held out."""
ELSEWHERE = (
    "Mako", "anyio", "cfgv", "cloudpickle", "colorlog", "distlib", "h11", "idna", "ml_dtypes", "nodeenv",
    "packaging", "partd", "pathspec", "psutil", "pytest-timeout", "regex", "sortedcontainers",
    "threadpoolctl", "tokenizers", "tqdm", "wadler_lindig",
)  # fmt: skip
"""Others, whose READMEs are for choosing options: what is learnt from docstrings should serve there, too."""
SKIPPED = frozenset({"site-packages", "dist-packages", "idlelib", "lib2to3", "__pycache__"})
MARKUP = (
    (re.compile(r"```.*?```", re.DOTALL), ""),
    (re.compile(r"!\[[^\]]*\]\([^)]*\)"), ""),
    (re.compile(r"\[([^\]]*)\](\([^)]*\)|\[[^\]]*\])"), r"\1"),
    (re.compile(r"`([^`<]*)<[^`>]*>`_+"), r"\1"),
    (re.compile(r"<[^>]*>"), ""),
)
"""What Markdown and reStructuredText put around words, and what stays of it."""
NO_PROSE = (">>>", "..", "#", ":", "|", "=", "-", "*", "+", "@")


def standard_library() -> list[str]:
    """Sentences of the docstrings of Python's standard library, without its tests."""
    return documented(Path(sysconfig.get_path("stdlib")))


def packages(names: Sequence[str] = PACKAGES) -> list[str]:
    """Sentences of the docstrings of installed packages, without their tests."""
    return distinct(s for name in names for s in documented(_folder(name)))


def held_out() -> list[str]:
    """Sentences of another source: descriptions of scikit-learn's data sets, and READMEs of packages."""
    described = sorted((_folder("sklearn") / "datasets" / "descr").glob("*.rst"))
    return _marked_up([*(path.read_text(encoding="utf-8") for path in described), *map(readme, READMES)])


def elsewhere() -> list[str]:
    """Sentences of READMEs of packages that are neither tuned on nor held out."""
    unwanted = set(held_out())
    return [sentence for sentence in _marked_up(map(readme, ELSEWHERE)) if sentence not in unwanted]


def readme(name: str) -> str:
    """The README that a distribution carries in its metadata."""
    metadata = distribution(name).metadata
    return metadata.get("Description") or str(metadata.get_payload() or "")  # type: ignore[attr-defined]


def documented(root: Path) -> list[str]:
    """Sentences of the docstrings of all Python files under a folder."""
    files = (path for path in sorted(root.rglob("*.py")) if _is_library(path.relative_to(root)))
    return distinct(s for path in files for text in docstrings(path) for s in prose(text))


def docstrings(path: Path) -> Iterator[str]:
    """The docstrings of a file; none of one that this Python cannot read."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def without_markup(text: str) -> str:
    """The text without images, links and code blocks; the words of links stay.

    >>> without_markup("See [the guide](https://example.org) and `more <x>`_.")
    'See the guide and more .'
    """
    for pattern, kept in MARKUP:
        text = pattern.sub(kept, text)
    return text


def prose(text: str) -> Iterator[str]:
    """The sentences, as `is_sentence` wants them, of paragraphs that are neither code nor lists.

    >>> list(prose("Short.\\n\\nThis one has *eight words* in all, no more. And this has less."))
    ['This one has eight words in all, no more.']
    """
    for paragraph in re.split(r"\n\s*\n", text):
        lines = [line.strip() for line in paragraph.splitlines()]
        if any(line.startswith(NO_PROSE) for line in lines):
            continue
        flat = " ".join(re.sub(r"[`*]+", "", " ".join(lines)).split())
        yield from whole(flat)


def whole(line: str) -> Iterator[str]:
    """What of a line without breaks is a sentence, as `is_sentence` wants it."""
    return filter(is_sentence, re.split(r"(?<=[.!?])\s+(?=[A-Z])", line))


def is_sentence(text: str) -> bool:
    """Whether it has 8 to 40 words, starts and ends like a sentence, and is of letters for the most part."""
    letters = sum(c.isalpha() or c == " " for c in text)
    ends = re.fullmatch(r"[A-Z].*[.!?]", text) is not None
    return ends and 8 <= len(text.split()) <= 40 and letters >= 0.9 * len(text)


def distinct(sentences: Iterable[str]) -> list[str]:
    """Each once, in the order in which they come."""
    return list(dict.fromkeys(sentences))


def shuffled(sentences: Sequence[str], seed: int = 0) -> list[str]:
    """In an order that the seed alone decides."""
    return random.Random(seed).sample(sentences, len(sentences))


def _marked_up(texts: Iterable[str]) -> list[str]:
    """The sentences of texts in Markdown or reStructuredText."""
    return distinct(s for text in texts for s in prose(without_markup(text)))


def _folder(package: str) -> Path:
    """Where a package lies; it is not imported."""
    found = find_spec(package)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"package '{package}' is not installed.", name=package)
    return Path(found.origin).parent


def _is_library(path: Path) -> bool:
    """Whether a file of a folder is neither a test nor of what is installed beside it."""
    return not SKIPPED.intersection(path.parts) and not any("test" in part for part in path.parts)
