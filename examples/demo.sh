#!/usr/bin/env bash
# Both adapters from nothing to a report, on data made here. Usage: demo.sh FOLDER
set -euo pipefail
demo=${1:-demo}

say() { printf '\n$ %s\n' "$*"; "$@"; }

make_data() { # KIND FOLDER: phantom volumes or scenes, where there are none yet
    [ -d "$2" ] || python "$(dirname "$0")/make_data.py" "$1" "$2"
}

adapter() { # COMMAND NAME [--set KEY=VALUE ...]: small networks and few steps, to show and not to win
    local command=$1 name=$2 config="$demo/$2.yaml" run="$demo/runs/$2"
    shift 2
    [ -f "$config" ] || say "$command" init "$demo/data/$name" --labeled 3 --test 0.4 --output "$config"
    say "$command" train "$config" --output "$run" --set fit.steps=150 "$@"
    say "$command" evaluate "$run" --split test
}

mkdir -p "$demo"
make_data volumes "$demo/data/volumes"
make_data scenes "$demo/data/scenes"
adapter medseg-ssl volumes --set "domain.network.features=[8, 16, 32]"
adapter rsseg-ssl scenes --set domain.tile=64 --set domain.batch.unlabeled=4 \
    --set domain.network.encoder=mobilenet_v2

printf '\nOpen the two reports:\n  %s\n  %s\n' "$demo/runs/volumes/report.html" "$demo/runs/scenes/report.html"
