"""The paper's tables: which numbers a row shows, and the paper's own. Does not load torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """One kind of table.

    Attributes:
        columns: measured number -> title.
        stopped: the same at the evaluation where early stopping would have stopped.
        paper: measured number -> row -> the paper's value; the first number is the one that tests compare.
        measured: what must be measured for a run to belong in the table.
        caption: what the numbers are.
        real: whether a last row shows the same measures of real data.
    """

    columns: Mapping[str, str]
    stopped: Mapping[str, str]
    paper: Mapping[str, Mapping[str, float]]
    measured: str
    caption: str
    real: bool = False

    @property
    def tested(self) -> str:
        """The number that the paper compares first."""
        return next(iter(self.paper))


ORACLE = Table(
    columns={
        "nll_oracle": "NLL_oracle",
        "nll_test": "NLL_test",
        "entropy_g": "H(G)",
        "kl_g_oracle": "KL(G‖oracle)",
        "kl_oracle_g": "KL(oracle‖G)",
        "jsd": "JSD",
    },
    stopped={"nll_oracle": "NLL_oracle, early-stopped", "nll_test": "NLL_test, early-stopped"},
    # Table 1, and Figure 3 by (g, d, k). Names as `report.plain` returns them.
    paper={
        "nll_oracle": {
            "random": 10.310,
            "mle": 9.038,
            "scheduledsampling": 8.985,
            "pgbleu": 8.946,
            "seqgan": 8.736,
            "g100d1k10": 8.94,
            "g30d1k30": 8.89,
            "g1d1k10": 8.81,
            "g1d5k3": 8.73,
        }
    },
    measured="nll_oracle",
    caption="Nats per token",
)
TEXT_COLUMNS = {
    "nll_test": "NLL_test",
    "perplexity": "perplexity",
    **{f"bleu{n}": f"BLEU-{n}" for n in (2, 3, 4, 5)},
    "self_bleu2": "self-BLEU-2",
    "distinct2": "distinct-2",
    "distinct_tokens": "tokens used",
    "copied": "copies",
}
TEXT_CAPTION = "NLL_test in nats per token; BLEU against the test lines"
TABLES = {
    "1": ORACLE,
    "2": Table(
        columns=TEXT_COLUMNS,
        stopped={},
        paper={"bleu2": {"mle": 0.6670, "seqgan": 0.7389}},
        measured="bleu2",
        caption=TEXT_CAPTION,
        real=True,
    ),
    "3": Table(
        columns=TEXT_COLUMNS,
        stopped={},
        paper={"bleu3": {"mle": 0.519, "seqgan": 0.556}, "bleu4": {"mle": 0.416, "seqgan": 0.427}},
        measured="bleu3",
        caption=TEXT_CAPTION,
        real=True,
    ),
    "music": Table(
        columns={
            "nll_test": "NLL_test",
            "entropy_g": "H(G)",
            "bleu4": "BLEU-4",
            "self_bleu4": "self-BLEU-4",
            "mse": "MSE",
            "pitch_class_distance": "pitch classes",
            "interval_distance": "intervals",
            "copied": "copies",
        },
        stopped={},
        paper={"bleu4": {}},
        measured="pitch_class_distance",
        caption="NLL_test in nats per token; BLEU and distances against the test tunes",
        real=True,
    ),
    "text": Table(columns=TEXT_COLUMNS, stopped={}, paper={"bleu2": {}}, measured="bleu2", caption=TEXT_CAPTION, real=True),
}
