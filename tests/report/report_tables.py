"""Tables that the tests of reports share."""

from tenfold.measure import Latency, Measurement
from tenfold.report import LayerLine, Row, Table

PASS = Latency(0.0123, 0.012, 0.0135, 20, 1, "cpu")
FAST = Latency(0.0034, 0.0033, 0.004, 20, 1, "cpu")
DENSE = Row.of("dense", Measurement(4_321_000, 17_284_000, 1_234_567_890, PASS, 8_500_000, 0.975))
LAYER = LayerLine(
    "conv1.weight", (64, 32, 3, 3), "tucker", "o i h w -> o i (h w)", {"r0": 12, "r1": 7}, 18432, 4600, 0.113
)
KEPT = LayerLine("head.weight", (10, 64), params_before=640, params_after=640, note="would not pay")
SMALL = Row.of(
    "tucker2",
    Measurement(1_080_250, 4_321_000, 406_000_000, FAST, 7_000_000, 0.97),
    "params ≤ 25 %",
    accuracy_before=0.903,
    layers=(LAYER, KEPT),
)
TINY = Row("cp4", "params ≤ 5 %", 216_050, 864_200, accuracy=0.927)
BARE = Row("svd")
FULL = Table("ResNet on digits", DENSE, (SMALL, TINY, BARE), ("10 000 images.",), {"torch": "2.8.0"})
EMPTY = Table("Nothing", Row("dense"))
NOTHING_KNOWN = Table("None", Row("dense"), (Row("tt"), Row("cp", layers=(LayerLine("a"),))))
STRANGE = Table(
    "<script>alert('é')</script>",
    Row("dense", accuracy=float("nan"), params=0),
    (
        Row('<b>café</b> | "q" {{ 7 * 7 }} [red]', "<i>≤ 25 %</i>", 0, 0, 0, accuracy=float("inf")),
        Row("</script>", "", 10, accuracy=0.5, layers=(LayerLine("<img src=x>", note="<u>"),)),
    ),
    ("<em>note</em>",),
    {"<key>": "<value>"},
)
TABLES = {"full": FULL, "empty": EMPTY, "nothing known": NOTHING_KNOWN, "strange": STRANGE}
