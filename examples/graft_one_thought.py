"""Graft every thought of one problem into another, one at a time, and read what changes.

Run: python examples/graft_one_thought.py
"""

from thoughtgraft import Arm, Plan, collect_thoughts, decode_thoughts, load_model, load_problems, run

model = load_model("tiny-codi")
problems = load_problems("arithmetic:test", n=12, seed=4)
thoughts = collect_thoughts(model, problems, progress=False)

# Two problems that the model answers, differently.
right = [i for i, correct in enumerate(thoughts.correct) if correct]
host = right[0]
donor = next(i for i in right if thoughts.pred[i] != thoughts.pred[host])
for name, i in (("host", host), ("donor", donor)):
    print(f"{name:<6}{problems[i].question}\n      the model: {thoughts.texts[i]}")

top = decode_thoughts(model, thoughts, top=1).set_index(["problem_id", "slot"])["token"]
plan = Plan.from_triples([(host, donor, slot) for slot in range(model.num_latents)])
records = run(model, problems, plan, progress=False)
print("\nslot  host's thought  donor's thought  answer with the donor's")
for slot, answer in enumerate(records["pred"]):
    ours, theirs = (top[problems[i].id, slot] for i in (host, donor))
    print(f"CT{slot}   {ours:<16}{theirs:<17}{answer}")

# An edit of your own: what if the middle thoughts were half as long?
halved = Plan((Arm("halve", (2, 3), op=lambda live, at: live / 2),))
print("\nhalved CT2 and CT3:", run(model, problems, halved, progress=False)["correct"].mean(), "right")
