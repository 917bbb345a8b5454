"""How near texts come to the wanted ones, by BLEU and ROUGE; computed here, without downloads."""

from __future__ import annotations

from collections.abc import Sequence


def scores(texts: Sequence[str], wanted: Sequence[str]) -> dict[str, float]:
    """``bleu`` (0-100, sacrebleu's, over all texts together), F1 of ``rouge1``, ``rouge2`` and
    ``rougeL`` (0-1), and the share of texts that are ``exact``."""
    from sacrebleu.metrics.bleu import BLEU
    from torchmetrics.functional.text import rouge_score

    bleu = BLEU(tokenize="13a").corpus_score(list(texts), [list(wanted)]).score
    rouge = rouge_score(list(texts), list(wanted), rouge_keys=("rouge1", "rouge2", "rougeL"))
    exact = sum(text == want.strip() for text, want in zip(texts, wanted, strict=True))
    return {
        "bleu": round(float(bleu), 4),
        "rouge1": round(float(rouge["rouge1_fmeasure"]), 6),
        "rouge2": round(float(rouge["rouge2_fmeasure"]), 6),
        "rougeL": round(float(rouge["rougeL_fmeasure"]), 6),
        "exact": exact / max(1, len(texts)),
    }
