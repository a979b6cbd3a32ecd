#!/bin/sh
# Compare maskings on public prose: DPMLM_DATA=FOLDER sh examples/masking/compare.sh SIZE OUT
# SIZE is `small` (8 trainings: 8 minutes of one processor) or `full` (72, twice as long each).
# Repeat it to go on after an interruption. OUT gets the runs, the page and result.json.
set -eu
size=$1 out=$2 here=$(dirname "$0")
mkdir -p "$out"
cp -n "$here/run.yaml" "$here/as-it-is.yaml" "$out/"
dpmlm init "$out"
case $size in
small) grid="--strategies token,whole_word --ratios 0.15,0.4 --seeds 2 --steps 600" ;;
full) grid="--strategies all --ratios 0.15,0.3,0.4 --static both --seeds 3 --steps 1200" ;;
*) echo "SIZE is small or full" >&2 && exit 2 ;;
esac
# shellcheck disable=SC2086  # the words of $grid are options
dpmlm masks compare "$out/run.yaml" $grid --out "$out/$size" --public \
  --set corpus.path="$DPMLM_DATA/public_prose" \
  --set tokens.train.corpus="$DPMLM_DATA/public_prose" --json >"$out/result.json"
