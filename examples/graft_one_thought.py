"""Graft every thought of one problem into another, one at a time, and read what changes.

Run: python examples/graft_one_thought.py
"""

from thoughtgraft import Arm, Plan, collect_thoughts, decode_thoughts, load_model, load_problems, run

model = load_model("tiny-codi")
problems = load_problems("arithmetic:test", n=12, seed=4)
thoughts = collect_thoughts(model, problems, progress=False)

# Two problems that the model answers, differently.
said = dict(zip(thoughts.problem_ids, thoughts.texts, strict=True))
right = thoughts.right[thoughts.right].index
host = right[0]
donor = next(i for i in right if problems.by_id(i).gold != problems.by_id(host).gold)
for name, i in (("host", host), ("donor", donor)):
    print(f"{name:<6}{problems.by_id(i).question}\n      the model: {said[i]}")

top = decode_thoughts(model, thoughts, top=1).set_index(["problem_id", "slot"])["token"]
plan = Plan.from_triples([(host, donor, slot) for slot in range(model.num_latents)])
records = run(model, problems, plan, progress=False)
print("\nslot  host's thought  donor's thought  answer with the donor's")
for slot, answer in enumerate(records["pred"]):
    ours, theirs = (top[i, slot] for i in (host, donor))
    print(f"CT{slot}   {ours:<16}{theirs:<17}{answer}")

# An edit of your own: what if the middle thoughts were half as long?
halved = Plan((Arm("halve", (2, 3), op=lambda live, at: live / 2),))
print("\nhalved CT2 and CT3:", run(model, problems, halved, progress=False)["correct"].mean(), "right")
