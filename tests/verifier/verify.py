#!/usr/bin/env python3
"""An independent verifier of Requiem's proofs, written from docs/format alone. Needs Python 3.8 and the package blake3.
verify.py FILE               judge a proof file, an output proof or a ProofBundle: exit code 0 intact, 1 refused
verify.py FILE --pae PREFIX  also write what its envelopes sign, and the signatures, to PREFIX.N.pae, PREFIX.N.0, …"""
import base64, hashlib, json, re, sys, urllib.parse
from blake3 import blake3
class Refused(Exception): "A stable code, and what it is about."
def need(code, holds, why=""):
    if not holds: raise Refused(code, why)
# --- canonical-json.md
STRING = r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}))*"'
TOKEN = re.compile(STRING + r"|-?[0-9][-+.eE0-9]*|-|true|false|null|[][{}:,]|[ \t\n\r]+")
def canonical(value): return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
def members(pairs):
    for name, _ in pairs: need("E_KEY", re.fullmatch("[A-Za-z][A-Za-z0-9_]{0,127}", name), name[:80])
    return once(pairs, "E_DUP_KEY")
def parse(data):
    need("E_BOUNDS", len(data) <= 256 * 1024, "too large")
    try:
        text, at, depth = data.decode(), 0, 0
        while at < len(text):
            token = TOKEN.match(text, at)
            need("E_PARSE", token, f"at character {at}")
            word, at = token.group(0), token.end()
            if word[0] in "-0123456789": need("E_NUMBER", re.fullmatch("0|-?[1-9][0-9]{0,15}", word) and abs(int(word)) < 2**53, word[:40])
            depth += (word in "{[") - (word in "}]")
            need("E_BOUNDS", depth <= 32, "too deep")
            need("E_NULL", word != "null")
        value = json.loads(text, object_pairs_hook=members)
    except ValueError as error: raise Refused("E_PARSE", str(error)) from None
    need("E_NOT_CANONICAL", canonical(value) == data)
    return value
# --- proof.md: digests and trees
def derive(context, data): return blake3(data, derive_key_context="requiem.dev 2026-11 " + context).digest()
def text_of(digest): return "blake3:" + digest.hex()
def node(left, right): return derive("proof/v1 node", left + right)
def root_over(context, count, tree): return text_of(derive("proof/v1 " + context, count.to_bytes(8, "big") + tree))
def leaf(tag, body): return derive("proof/v1 leaf", len(tag.encode()).to_bytes(2, "big") + tag.encode() + len(body).to_bytes(8, "big") + body)
def tree_hash(hashes):
    k = 1 << (len(hashes) - 1).bit_length() >> 1  # The largest power of two below their number.
    return node(tree_hash(hashes[:k]), tree_hash(hashes[k:])) if k else hashes[0]
def root(context, leaves):
    need("E_LEAF_ORDER", increases([tag for tag, _ in leaves]))
    return root_over(context, len(leaves), tree_hash([leaf(tag, body) for tag, body in leaves]))
def root_from_path(context, found, path):
    place, last = path["index"], path["leafCount"] - 1
    need("E_PROOF", place <= last, "the index lies outside the tree")
    for sibling in map(bytes.fromhex, path["siblings"]):
        need("E_PROOF", last, "a sibling too many")
        if place & 1 or place == last:
            found = node(sibling, found)
            while not place & 1 and place: place, last = place >> 1, last >> 1
        else: found = node(found, sibling)
        place, last = place >> 1, last >> 1
    need("E_PROOF", not last, "a sibling is missing")
    return root_over(context, path["leafCount"], found)
# --- proof.md: shapes. A dict is an object ("x?" may be absent), a list its elements, a set one of these texts, a tuple a range
LAYERS = ("userNamespace pidNamespace mountNamespace networkNamespace ipcNamespace utsNamespace cgroupNamespace minimalRoot "
          "readOnlyInputs scratch procfs noNewPrivileges capabilities rlimits cgroup landlock seccomp descriptors").split()
WEIGHTS = dict(environment=10, identity=5, processIds=5, addressLayout=10, inputTimes=5, rootFilesystem=10, clock=15, randomness=15,
               scheduling=10, hostFacts=5, network=10)
LIMITS = dict(timeoutMs=(1, 604800000), maxOutputBytes=(0, 2**30), memoryBytes=(2**22, 2**44), pids=(1, 2**20),
              scratchBytes=(65536, 2**44), scratchInodes=(16, 2**30), openFiles=(8, 2**20))
def size(text): return len(text.encode())
def spelt(pattern): return lambda text: isinstance(text, str) and re.fullmatch(pattern, text)
is_digest, is_hash, is_key = spelt("blake3:[0-9a-f]{64}"), spelt("[0-9a-f]{64}"), spelt(r"(?!\.{1,2}$)[-._A-Za-z0-9]{1,253}")
def is_part(text): return text not in ("", ".", "..") and size(text) <= 255
def is_path(text): return isinstance(text, str) and size(text) <= 1024 and "\0" not in text and all(map(is_part, text.split("/")))
def is_key_id(text): return isinstance(text, str) and size(text) <= 256
def is_object(text): return isinstance(text, str) and re.fullmatch(rf"(?=.{{1,253}}$){LABEL}(\.{LABEL})*", text, re.ASCII)
def is_variable(text): return isinstance(text, str) and 0 < size(text) <= 255 and not set(text) & set("=\0")
def either(*shapes): return lambda value: any(fits(value, shape) for shape in shapes)
U64, U8, LEVEL = (0, 2**53 - 1), (0, 255), {"off", "preferred", "required"}
BLOB, TREE = {"kind": {"blob"}, "digest": is_digest, "executable": bool}, {"kind": {"tree"}, "digest": is_digest}
CONTENT = either({**BLOB, "bytes": U64}, {**TREE, "bytes": U64, "entries": U64})
STREAM = {"digest": is_digest, "bytes": U64, "truncated": bool}
OUTCOME = either({"kind": {"exited"}, "code": U8}, {"kind": {"signalled"}, "signal": U8}, {"kind": {"timedOut", "outOfMemory"}})
REF = {"name": is_variable, "source": {"kind": {"secret", "configMap"}, "name": is_object, "key": is_key}}
REQUEST = {"argv": [str], "env": [{"name": is_variable, "value": str}], "envRefs?": lambda refs: refs and fits(refs, [REF]), "workingDir?": is_path, "stdin?": is_digest,
           "inputs": [{"path": is_path, "source": either(BLOB, TREE)}], "outputs": [is_path], "limits": {name: U64 for name in LIMITS},
           "policy": {"layers": {layer: LEVEL for layer in LAYERS}}, "nonce?": str}
RESULT = {"outcome": OUTCOME, "stdout": STREAM, "stderr": STREAM, "outputs": [{"path": is_path, "content": CONTENT}],
          "missingOutputs": [{"path": is_path, "why": str}]}
ROW = {"layer": set(LAYERS), "requested": LEVEL, "status": {"enforced", "partial", "unsupported", "delegated", "disabled"}, "mechanism": str,
       "scope": {"processTree", "pod", "node"}, "evidence": {"probe", "readback", "syscallReturn", "assertedByOuter", "none"}, "detail?": str}
RUN = {"identity": {"namespace": str, "name": str, "uid": str, "generation": U64, "attempt": (0, 2**32 - 1)},
       "sandbox": {"layers": [ROW], "sources": [{"source": set(WEIGHTS), "state": {"fixed", "real", "unprobed", "undisclosed"}}]},
       "confidence": {"formula": str, "level": {"best_effort", "medium", "high"}, "score": U8, "reasons": [str]},
       "executor": {"name": str, "version": str, "binary": is_digest, "kernel": str, "arch": str}, "startedAt": str, "completedAt": str,
       "usage": {"wallUs": U64, "userUs": U64, "systemUs": U64, "peakMemoryBytes": U64}, "durability": str}
BODY = {"schema": str, "execution": {"request": REQUEST, "engine": {"name": str, "version": str}, "result": RESULT}, "run": RUN}
PATH = {"index": (0, 2**64 - 1), "leafCount": (0, 2**64 - 1), "siblings": [is_hash]}
OUTPUT, ROOTS = {"path": is_path, "content": CONTENT, **PATH}, {"executionRoot": is_digest, "bundleRoot": is_digest}
ENVELOPES = {"envelopes?": [{"payloadType": str, "payload": str, "signatures": [{"keyid": is_key_id, "sig": str}]}]}
PLAIN = {"body": str, **ROOTS, **ENVELOPES}
ALONE = {"schema": {"requiem-output-proof/1"}, **ROOTS, "execution": PATH, "output": OUTPUT, **ENVELOPES}
def fits(value, shape):
    if isinstance(shape, dict):
        return isinstance(value, dict) and set(value) <= {name.rstrip("?") for name in shape} and all(
            fits(value[name.rstrip("?")], of) if name.rstrip("?") in value else name[-1] == "?" for name, of in shape.items())
    if isinstance(shape, list): return isinstance(value, list) and all(fits(each, shape[0]) for each in value)
    if isinstance(shape, set): return isinstance(value, str) and value in shape
    if isinstance(shape, tuple): return type(value) is int and shape[0] <= value <= shape[1]
    return isinstance(value, shape) if isinstance(shape, type) else bool(shape(value))
# --- proof.md: leaves and roots
def roots(body):
    run, (request, engine, result) = body["run"], (body["execution"][part] for part in ("request", "engine", "result"))
    def tree(context, facts): return root(context, sorted((tag, canonical(of)) for tag, of in facts))  # Tags are ASCII.
    facts = [("00/header", {"schema": "requiem-execution/1", "suite": "blake3-derive/1"}), ("01/contract", request), ("02/engine", engine)]
    facts += [("03/policy", {"digest": text_of(derive("policy/v1", canonical(request["policy"])))})]
    facts += [("10/input/" + urllib.parse.quote(each["path"]), each["source"]) for each in request["inputs"]]
    facts += [("20/output/" + urllib.parse.quote(each["path"]), each["content"]) for each in result["outputs"]]
    facts += [("21/missing/" + urllib.parse.quote(each["path"]), {"why": each["why"]}) for each in result["missingOutputs"]]
    facts += [("30/stream/" + name, result[name]) for name in ("stderr", "stdout")] + [("40/outcome", result["outcome"])]
    execution = tree("execution-root", facts)
    claims = [("00/header", {"schema": "requiem-bundle/1", "suite": "blake3-derive/1"}), ("01/execution", {"root": execution})]
    claims += [("03/capability/" + row["layer"], row) for row in run["sandbox"]["layers"]]
    claims += [("03/source/" + row["source"], {"state": row["state"]}) for row in run["sandbox"]["sources"]]
    claims += [("02/identity", run["identity"]), ("04/executor", run["executor"]), ("05/time", {name: run[name] for name in ("completedAt", "startedAt")})]
    claims += [("06/usage", run["usage"]), ("07/determinism", run["confidence"]), ("08/durability", {"class": run["durability"]})]
    return execution, tree("bundle-root", claims)
# --- proof.md: the facts agree with one another
def plain(text, low, high): return low <= size(text) <= high and not re.search("[\0-\x1f\x7f-\x9f]", text)
def increases(texts): return all(one.encode() < other.encode() for one, other in zip(texts, texts[1:]))
def check_request(request):
    argv, outs, ins = request["argv"], request["outputs"], [each["path"] for each in request["inputs"]]
    names, refs = [each["name"] for each in request["env"]], [each["name"] for each in request.get("envRefs", [])]
    texts = argv + [each["value"] for each in request["env"]]
    bounded = max(map(len, (argv, names + refs, ins, outs))) <= 256 and sum(map(size, texts + names)) + len(argv) + 2 * len(names) <= 128 * 1024
    need("E_REQUEST", argv and argv[0] and (argv[0][0] == "/" or "/" not in argv[0]) and bounded and "\0" not in "".join(texts), "command")
    need("E_REQUEST", all(map(increases, (names, refs, ins, outs))) and not set(names) & set(refs), "not sorted, or twice")
    nested = any(one.startswith(other + "/") for one in ins + outs for other in ins + outs)
    need("E_REQUEST", not nested and not set(ins) & set(outs), "a path lies within another")
    need("E_REQUEST", fits(request["limits"], LIMITS) and size(request.get("nonce", "")) <= 256, "limits")
def holds_together(of): return (of["bytes"] == 0) == (of["digest"] == text_of(blake3(b"").digest()))
def check_result(request, result, most):
    for of in (result["stdout"], result["stderr"]):
        need("E_CONTENT", of["bytes"] <= most and (not of["truncated"] or of["bytes"] == most) and holds_together(of), "stream")
    found, gone = ([each["path"] for each in result[name]] for name in ("outputs", "missingOutputs"))
    told = all(plain(each["why"], 1, 200) for each in result["missingOutputs"])
    need("E_OUTPUTS", increases(found) and increases(gone) and sorted(found + gone) == request["outputs"] and told)
    need("E_CONTENT", all(each["content"]["kind"] == "tree" or holds_together(each["content"]) for each in result["outputs"]), "output")
LABEL, STRONG = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", {"enforced": ("probe", "readback"), "delegated": ("assertedByOuter",)}
def is_time(text):
    found = re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)T([01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{3}Z", text, re.ASCII)
    year, month, day = map(int, found.group(1, 2, 3)) if found else (0, 0, 0)
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return year >= 1970 and 1 <= month <= 12 and 1 <= day <= [31, 28 + leap, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1]
def check_claims(run):
    patterns = {"namespace": LABEL, "name": rf"(?=.{{1,253}}$){LABEL}(\.{LABEL})*", "uid": "[A-Za-z0-9._-]{1,128}"}
    need("E_IDENTITY", all(re.fullmatch(of, run["identity"][name]) for name, of in patterns.items()) and run["identity"]["attempt"] >= 1)
    need("E_CLAIM", all(plain(run["executor"][name], 1, 256) for name in ("name", "version", "kernel", "arch")), "executor")
    need("E_CLAIM", run["durability"] in ("volatile", "batched", "strict"), "durability")
    need("E_TIME", is_time(run["startedAt"]) and is_time(run["completedAt"]) and run["startedAt"] <= run["completedAt"])
def check_report(policy, report, refers, ours):
    need("E_REPORT", [row["layer"] for row in report["layers"]] == LAYERS and [row["source"] for row in report["sources"]] == list(WEIGHTS))
    for row in report["layers"]:
        layer, asked, status, detail = row["layer"], policy[row["layer"]], row["status"], row.get("detail", "")
        need("E_REPORT", row["requested"] == asked and plain(row["mechanism"], 1, 128) and plain(detail, 0, 1024), layer)
        need("E_REPORT", (status == "enforced" or detail) and (status != "disabled" or asked == "off"), layer)
        need("E_EVIDENCE", row["evidence"] in STRONG.get(status, (row["evidence"],)) and (ours or status not in ("enforced", "partial")), layer)
        need("E_REQUIRED_LAYER", asked != "required" or status in STRONG, layer)
    for row in report["sources"]: need("E_REPORT", (row["state"] == "undisclosed") == (refers and row["source"] == "environment") and (ours or row["state"] != "fixed"), "sources")
def confidence(report, engine):
    states, short = {row["source"]: row["state"] for row in report["sources"]}, [row for row in report["layers"] if row["status"] != "enforced"]
    ours, reasons = engine == "requiem", [f"{source}:{state}" for source, state in states.items() if state != "fixed"]
    named = ([] if ours else [f"engine:{engine}"]) + reasons + [f"layer:{row['layer']}:{row['status']}" for row in short]
    level = "best_effort" if not ours or short or "undisclosed" in states.values() or not states["clock"] == states["randomness"] == "fixed" else "medium" if reasons else "high"
    return {"formula": "dc/1" if ours else "dc/2", "level": level, "reasons": named, "score": sum(of * (states[source] == "fixed") for source, of in WEIGHTS.items())}
# --- proof.md: verification
def verify_body(text, claimed):
    body = parse(text)
    need("E_SHAPE", isinstance(body, dict))
    need("E_VERSION", body.get("schema") == "requiem-bundle/1")
    need("E_SHAPE", fits(body, BODY))
    (execution, bundle), facts, run = roots(body), body["execution"], body["run"]
    need("E_ROOT", (claimed.get("executionRoot", execution), claimed.get("bundleRoot", bundle)) == (execution, bundle))
    check_request(facts["request"])
    need("E_CLAIM", re.fullmatch("[a-z][a-z0-9-]{0,62}", facts["engine"]["name"]) and plain(facts["engine"]["version"], 1, 256), "engine")
    check_result(facts["request"], facts["result"], facts["request"]["limits"]["maxOutputBytes"])
    check_claims(run)
    check_report(facts["request"]["policy"]["layers"], run["sandbox"], "envRefs" in facts["request"], facts["engine"]["name"] == "requiem")
    need("E_CONFIDENCE", run["confidence"] == confidence(run["sandbox"], facts["engine"]["name"]))
    request = derive("request/v1", canonical(facts["request"]))
    found = {"executionRoot": execution, "bundleRoot": bundle, "requestDigest": text_of(request), "completedAt": run["completedAt"],
             "resultDigest": text_of(derive("result/v1", request + canonical(facts["result"]))), "identity": run["identity"]}
    need("E_REQUEST_BINDING", all(claimed.get(name, found[name]) == found[name] for name in ("identity", "requestDigest")))
    return found
def verify_output(proof, execution):
    need("E_SHAPE", fits(proof, OUTPUT))
    shown = leaf("20/output/" + urllib.parse.quote(proof["path"]), canonical(proof["content"]))
    need("E_PROOF", root_from_path("execution-root", shown, proof) == execution, "it leads to another root")
# --- proof.md: files; signatures.md: statements and envelopes
def once(pairs, code="E_SHAPE"): return need(code, len(dict(pairs)) == len(pairs), "a member is given twice") or dict(pairs)
def load(data):
    need("E_BOUNDS", len(data) <= 4 * 2**20, "the file is too large")
    try: file = json.loads(data.decode(), object_pairs_hook=once)
    except (ValueError, RecursionError) as error: raise Refused("E_PARSE", str(error)) from None
    return file if isinstance(file, dict) else need("E_SHAPE", False, "no object")
def statement(found, sha256):
    return canonical({"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://requiem.dev/attestation/execution/v1",
                      "predicate": {name: found[name] for name in ("bundleRoot", "completedAt", "executionRoot", "requestDigest")},
                      "subject": [{"digest": {"sha256": sha256}, "name": found["bundleRoot"]}]})
def check_envelope(envelope, found):
    need("E_PAYLOAD_TYPE", envelope["payloadType"] == "application/vnd.in-toto+json")
    try:
        texts = [envelope["payload"]] + [each["sig"] for each in envelope["signatures"]]
        payload, *signatures = parts = [base64.b64decode(text.encode(), validate=True) for text in texts]
        need("E_ENVELOPE", [base64.b64encode(part).decode() for part in parts] == texts and len(texts) <= 65, "base64, or too many")
        need("E_ENVELOPE", all(0 < len(part) <= 16384 for part in signatures), "a signature is empty or too long")
        told = {**json.loads(payload)["predicate"], "sha256": json.loads(payload)["subject"][0]["digest"]["sha256"], **found}
        known = is_hash(told["sha256"]) and is_digest(told["requestDigest"]) and is_time(told["completedAt"])
    except base64.binascii.Error: raise Refused("E_ENVELOPE", "no base64") from None
    except (ValueError, LookupError, TypeError, RecursionError): known = False
    need("E_STATEMENT", known and payload == statement(told, told["sha256"]), "it is about another bundle, or in another spelling")
    return {"pae": b"DSSEv1 28 application/vnd.in-toto+json %d %b" % (len(payload), payload), **dict(enumerate(signatures))}
def verify_alone(file):
    need("E_SHAPE", fits(file, ALONE))
    verify_output(file["output"], file["executionRoot"])
    wrapped = leaf("01/execution", canonical({"root": file["executionRoot"]}))
    need("E_PROOF", root_from_path("bundle-root", wrapped, file["execution"]) == file["bundleRoot"], "it leads to another bundle root")
    return {name: file[name] for name in ROOTS}
def verify_bundle(file):
    view = None
    if "kind" in file or "apiVersion" in file:
        need("E_KIND", (file.get("kind"), file.get("apiVersion")) == ("ProofBundle", "requiem.dev/v1alpha1"))
        try:
            spec, about = file["spec"], file["spec"]["executionRef"]
            view = [file["metadata"]["namespace"], about["name"], about["uid"]]
            file = {name: spec[name] for name in ("body", *ROOTS, "envelopes") if name in spec}
        except (LookupError, TypeError): raise Refused("E_SHAPE", "no ProofBundle") from None
    need("E_SHAPE", fits(file, PLAIN))
    found = verify_body(file["body"].encode("utf-8", "surrogatepass"), file)
    need("E_REQUEST_BINDING", view in (None, [found["identity"][name] for name in ("namespace", "name", "uid")]), "another Execution")
    return {**found, "sha256": hashlib.sha256(file["body"].encode()).hexdigest()}
def verify_file(data, prefix=None):
    file = load(data)
    found = verify_alone(file) if "schema" in file else verify_bundle(file)
    envelopes = file.get("spec", file).get("envelopes", [])
    need("E_ENVELOPE", len(envelopes) <= 16, "too many envelopes")
    for index, envelope in enumerate(envelopes):
        for name, content in check_envelope(envelope, found).items():
            if prefix: open(f"{prefix}.{index}.{name}", "wb").write(content)
    return found
def verdict(judge, *arguments):
    try: return {"code": "ok", **judge(*arguments)}
    except Refused as refused: return {"code": refused.args[0], "why": refused.args[1]}
if __name__ == "__main__":
    said = verdict(verify_file, open(sys.argv[1], "rb").read(), sys.argv[3] if sys.argv[2:3] == ["--pae"] else None)
    sys.exit(print(json.dumps(said, indent=2)) or said["code"] != "ok")
