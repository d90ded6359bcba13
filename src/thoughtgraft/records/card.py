"""The dataset card that goes beside exported records: what they are, how made, what each column means."""

from __future__ import annotations

from thoughtgraft.records.schema import RECORD_SCHEMA, SCHEMA_VERSION
from thoughtgraft.records.spec import RunSpec

# Names the file as ours, so that nobody else's README is overwritten.
CARD_MARK = "<!-- thoughtgraft dataset card -->"

COLUMN_MEANINGS = {
    "run_id": "hash of what makes the run this run",
    "unit": "the work unit: cells that ran together and were stored as one",
    "cell": "stable key of this generation: hash of what defines it",
    "arm": "the condition's name",
    "method": "baseline, noop, self, swap, mean, zero, noise, skip, truncate or shuffle",
    "slots": "edited slots k, 0-based: `fed[k]`",
    "downstream": "what happens to unedited slots after the first edited one",
    "protocol": "the complete rule of inference",
    "num_latents": "continuous thoughts K",
    "model_edit": "what hooks and edits of the loaded model were called; null = it was as it was loaded",
    "problem_id": "the host problem",
    "split": "the split the host belongs to",
    "n_steps": "arithmetic steps of the host; null = unknown",
    "operation": "addition, multiplication, mixed or unknown",
    "gold": "exact gold answer",
    "base_pred": "the host's answer unedited",
    "base_correct": "whether that is right",
    "donor_id": "the problem that the thought was taken from",
    "donor_stratum": "how donors were drawn (a label)",
    "donor_pred": "the donor's own answer, unedited",
    "donor_correct": "whether that is right",
    "text": "the generated text",
    "token_ids": "the generated tokens",
    "stop_reason": "why generation ended",
    "n_tokens": "generated tokens, count",
    "pred": "the parsed answer, an exact number; null = nothing parsed",
    "valid": "whether a number parsed",
    "correct": "whether pred equals gold",
    "changed": "whether pred differs from base_pred",
    "adopted": "whether pred equals donor_pred, over eligible pairs; null = not eligible",
    "logp_gold": "log-probability of the gold answer (natural log)",
    "dlogp_gold": "logp_gold, edited minus clean",
    "logp_donor": "log-probability of the donor's answer (natural log)",
    "kl": "KL(clean || edited) at the number's first token, nats",
    "fed_norm": "norm of the vector that was fed",
    "donor_cos": "cosine of the host's and the donor's vector",
    "pad": "left pads before the question",
    "seed": "seed of a random edit; null = not random",
    "error": "why the cell has no outcome (its other results are null); null = it did not fail",
}


def dataset_card(spec: RunSpec, file: str, rows: int, where: str | None) -> str:
    """The card's text (Markdown).

    Args:
        spec: The run.
        file: Name of the exported file.
        rows: Records in it.
        where: The condition they were selected by, if any.
    """
    facts = {
        "study": spec.study,
        "model": f"{spec.model} (identity {spec.model_hash})",
        "protocol": spec.protocol,
        "continuous thoughts (K)": spec.num_latents,
        "longest answer": "not recorded" if spec.max_new_tokens is None else f"{spec.max_new_tokens} tokens",
        "problems": f"{spec.problems} (content {spec.problem_hash})",
        "plan": f"{spec.plan_hash}: {spec.n_hosts} hosts, {spec.n_donors} donors each, {spec.n_cells} cells",
        "seed": spec.seed,
        "dtype, device": f"{spec.dtype}, {spec.device}",
        "run id": spec.run_id,
        "record schema": SCHEMA_VERSION,
        "rows": f"{rows:,}" + (f", selected by `{where}`" if where else f" of {spec.n_cells:,} planned"),
    }
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    columns = [
        f"| {f.name} | {f.type} | {COLUMN_MEANINGS[f.name].replace('|', chr(92) + '|')} |" for f in RECORD_SCHEMA
    ]
    return "\n".join(
        [
            "---",
            f"pretty_name: thoughtgraft {spec.study} records",
            "tags: [interpretability, latent-reasoning, causal-intervention]",
            "configs:",
            "- config_name: default",
            f"  data_files: {file}",
            "---",
            CARD_MARK,
            f"# Records of a thoughtgraft {spec.study} run",
            "",
            "One row per generation. An edit replaces some of the continuous thoughts that a latent-reasoning language",
            "model is fed (`fed[k]`); the row says what was edited and what the model then answered.",
            "",
            *lines,
            "",
            "| column | type | meaning |",
            "|---|---|---|",
            *columns,
            "",
        ]
    )
