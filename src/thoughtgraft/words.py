"""The axis names used in shapes, once for all docstrings and signatures.

| axis | meaning |
|---|---|
| problem, P | problems of a set or of a batch |
| row, R | generations of a batch |
| slot, K | continuous thoughts that are fed, 0-based; CTk is slot k |
| state, K+1 | `hidden[0..K]`: one more than the slots, the last is never fed |
| d | width of the residual stream |
| token, T | tokens of one pass |
| vocab, V | embedding rows |
"""

from __future__ import annotations

CONVENTIONS = {
    "cot-exploration": "cache[k] = hidden[k]",
    "cywinski-codi": "index k = fed[k]",
    "codi-ao": "z1..z6 = hidden[1..6]",
    "causal-latent-cot": "step t (1-based) = fed[t - 1]",
    "codi-probe": "rows 0..6 = hidden[0..6]",
}
"""How other codebases number what this project calls `fed` and `hidden`."""
