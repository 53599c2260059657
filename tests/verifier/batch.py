"""Asks verify.py many questions in one process: one JSON question a line in, one JSON verdict a line out. For tests."""
import json, sys
import verify as v

KINDS = {
    "canon": lambda asked: {"again": v.canonical(v.parse(bytes.fromhex(asked["hex"]))).hex()},
    "body": lambda asked: v.verify_body(asked["body"].encode(), asked),
    "output": lambda asked: {"output": v.verify_output(v.load(asked["proof"].encode()), asked["executionRoot"])},
    "tree": lambda asked: {"root": v.root(asked["context"], [(tag, body.encode()) for tag, body in asked["leaves"]])},
    "file": lambda asked: v.verify_file(bytes.fromhex(asked["hex"])),
}
for line in sys.stdin:
    question = json.loads(line)
    print(json.dumps(v.verdict(KINDS[question["kind"]], question)), flush=True)
