#!/usr/bin/env bash
# What a model gains and loses by adaptation, with privacy and without: both are trained on MedQuAD,
# and each is asked about held-out answers, by their source, and about public text.
#
#   examples/recipes/evaluate.sh DATA BASE OUT
#
# DATA has medquad, public_prose, movie_reviews and ner; BASE is what pretrain.py wrote. MedQuAD is
# public, so nothing is scrubbed, and figures are shown. Killed, the same command goes on.
set -euo pipefail

data=$(realpath "${1:?usage: evaluate.sh DATA BASE OUT}") base=$(realpath "$2") out=$3
here=$(dirname "$(realpath "$0")")
mkdir -p "$out"
cd "$out"
[ -e base ] || ln -s "$base" base
cp "$here/../masking/as-it-is.yaml" .
for name in private free; do
  python - "$here/adapt.yaml" "$data" "$name" > "$name.yaml" <<'END'
import sys
import yaml

recipe, data, name = sys.argv[1:]
run = yaml.safe_load(open(recipe))
run |= {"name": name, "workspace": name, "scrub": {"policy": "as-it-is.yaml"}}
run["corpus"]["path"] = f"{data}/medquad/train.jsonl"
# As many rows as two cores train on in some minutes.
run["training"] |= {"steps": 50, "expected_batch_size": 512, "windows_per_draw": 2}
run["training"]["scale"]["corpus"] = run["audit"]["control"]["corpus"] = f"{data}/public_prose"
run["audit"]["canaries"] = 0
if name == "free":
    run["privacy"] |= {"epsilon": "inf"}
    run["ledger"] = {"path": "free.jsonl", "cap": {"epsilon": "inf", "delta": 1e-5}}
yaml.safe_dump(run, sys.stdout)
END
done
for name in private free; do
  cp "$name.yaml" run.yaml  # the name that init looks for
  dpmlm init . > /dev/null
done
probes=(--probe sentiment="$data/movie_reviews/train.jsonl" --probe ner="$data/ner/wikigold.conll")
for name in private free; do  # trained first
  dpmlm evaluate "$name.yaml" --groups source --pseudo 20 "${probes[@]}" --show-private \
    --out "$name.json"
done
