"""All laws of layers by name, and one run of them over cases, with the gaps of torch where they are known."""

import re
from collections.abc import Iterable, Mapping

import torch

from tenfold.testing.citizenship import CITIZENSHIP
from tenfold.testing.layer_cases import FAMILIES, cases, columns
from tenfold.testing.layer_dtypes import DTYPE_LAWS
from tenfold.testing.layer_family import Case
from tenfold.testing.layer_functions import FUNCTION_LAWS
from tenfold.testing.layer_gaps import gap
from tenfold.testing.layers import LAWS

EVERY_LAW = {
    law.__name__.removeprefix("check_"): law for law in (*LAWS, *DTYPE_LAWS, *FUNCTION_LAWS, *CITIZENSHIP)
}
"""The laws by name, without "check_"."""
TRACED = ("compile", "export", "mark_dynamic")
"""Those that compile, which take a second each."""


def check_case(case: Case, laws: Iterable[str]) -> int:
    """Raise AssertionError unless the layer obeys the laws, or does not as is known; returns their number.

    A known gap that is not there any more is an error too, so the table of gaps cannot grow old.

    >>> check_case(cases("Linear", "tt")[0], ["copies", "vector"])
    2
    """
    count = 0
    for law in laws:
        if law in TRACED:
            torch.compiler.reset()
        known = gap(law, case)
        try:
            EVERY_LAW[law](case.make(), case.call())
        except Exception as error:
            if known is None or not re.search(known.error, str(error)):
                raise AssertionError(f"{case} does not obey the law {law!r}: {error}") from error
        else:
            assert known is None, f"{case} obeys the law {law!r} now: take it from the table of gaps"
        count += 1
    return count


def laws_of(case: Case) -> list[str]:
    """The laws to be run in full: those that compile for every format with the usual layout and options,
    and for every option in one format, which is another one each time; all others always.
    """
    family, choices = FAMILIES[case.layer], list(columns(case.layer))
    usual = case == cases(case.layer, case.format)[0]
    position = family.options.index(case.options)
    turn = position > 0 and choices.index(case.format) == 4 * position % len(choices)
    return [law for law in EVERY_LAW if law not in TRACED or usual or turn]


def every_case() -> Mapping[tuple[str, str], list[Case]]:
    """All cases by layer and format."""
    return {(layer, format): cases(layer, format) for layer in FAMILIES for format in columns(layer)}
