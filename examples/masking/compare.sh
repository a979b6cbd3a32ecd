#!/bin/sh
# Compare maskings on public prose: DPMLM_DATA=FOLDER sh examples/masking/compare.sh PART OUT
# PART is `small` (which words, how many) or `static` (the same masks at every visit or others;
# spans), 8 trainings and about 13 minutes of one processor each, or `full` (72, twice as long).
# Repeat it to go on after an interruption. OUT gets the runs, the page and PART.json.
set -eu
part=$1 out=$2 here=$(dirname "$0")
case $part in
small) grid="--strategies token,whole_word --ratios 0.15,0.4 --seeds 2 --steps 600" ;;
static) grid="--strategies token,span --static both --seeds 2 --steps 600" ;;
full) grid="--strategies all --ratios 0.15,0.3,0.4 --static both --seeds 3 --steps 1200" ;;
*) echo "PART is small, static or full" >&2 && exit 2 ;;
esac
mkdir -p "$out"
cp -n "$here/run.yaml" "$here/as-it-is.yaml" "$out/"
dpmlm init "$out"
# shellcheck disable=SC2086  # the words of $grid are options
dpmlm masks compare "$out/run.yaml" $grid --out "$out/$part" --public \
  --set corpus.path="$DPMLM_DATA/public_prose" \
  --set tokens.train.corpus="$DPMLM_DATA/public_prose" --json >"$out/$part.json"
