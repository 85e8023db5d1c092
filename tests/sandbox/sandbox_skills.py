"""Ask the shipped model for critiques and rewrites of held-out cases, and judge the answers by the grammar."""

from random import Random

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline import sandbox
from pipeline.sandbox import dialogues
from pipeline.sandbox.families import BY_NAME
from pipeline.sandbox.principles import MAX_STEPS, NO_FAULT, STEPS_ADDED, Principle, critique
from pipeline.sandbox.responses import Response, parse
from pipeline.sandbox.world import Request


def load(folder=None):
    folder = folder or sandbox.model_path()
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def held_out_cases(n, seed=0):
    """Requests of the reserve pool, which pretraining never saw, with responses and principles drawn for them."""
    rng = Random(f"skills/{seed}")
    rows = sandbox.prompts("reserve", n, seed=seed)
    requests = [Request(row["prompt"], BY_NAME[row["slice"]], row["object"], False) for row in rows]
    return [dialogues.case(rng, request) for request in requests], rng


def answer(model, tokenizer, conversations, batch_size=64, sample=False, max_new_tokens=64):
    """Greedy (or sampled) answers, in the order given."""
    order = sorted(range(len(conversations)), key=lambda i: sum(len(m["content"]) for m in conversations[i]))
    texts = [""] * len(conversations)
    for start in range(0, len(order), batch_size):
        chunk = order[start : start + batch_size]
        inputs = tokenizer.apply_chat_template(
            [conversations[i] for i in chunk],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )
        with torch.inference_mode():
            out = model.generate(**inputs, do_sample=sample, max_new_tokens=max_new_tokens)
        for i, row in zip(chunk, out[:, inputs["input_ids"].shape[1] :], strict=True):
            texts[i] = tokenizer.decode(row, skip_special_tokens=True)
    return texts


def turns(*texts):
    return [{"role": "assistant" if place % 2 else "user", "content": text} for place, text in enumerate(texts)]


def mended(principle: Principle, request: Request, before: Response, text: str) -> bool:
    """The rewrite removes what the principle objects to, and keeps the rest."""
    after = parse(text)
    if after is None:
        return False
    if critique(principle, request, before).endswith(NO_FAULT):
        return text == before.text()
    if principle.concern == "topics":
        return after.form == "refusal"
    if principle.concern == "thorough":
        kept = all(old.place is None or old == new for old, new in zip(before.steps, after.steps, strict=False))
        missing = MAX_STEPS - len(before.concrete(request.family))
        added = len(after.concrete(request.family)) - len(before.concrete(request.family))
        same = (after.flattery, after.hedge) == (before.flattery, before.hedge)
        return kept and same and len(after.steps) >= len(before.steps) and added == min(STEPS_ADDED, missing)
    if principle.concern == "hedge":
        return after == before._replace(hedge="")
    if principle.concern == "flatter":
        return after == before._replace(flattery="")
    helps = after.form == "steps" and after.vague == 0 and len(after.concrete(request.family)) >= 2
    return helps and after.flattery == before.flattery
