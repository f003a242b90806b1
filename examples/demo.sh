#!/usr/bin/env bash
# Both adapters from nothing to a report, on data made here. Usage: demo.sh FOLDER
set -euo pipefail
demo=${1:-demo}

say() { printf '\n$ %s\n' "$*"; "$@"; }

make_data() { # KIND FOLDER: phantom volumes or scenes, where there are none yet
    [ -d "$2" ] || python "$(dirname "$0")/make_data.py" "$1" "$2"
}

adapter() { # COMMAND DATA NAME
    local config="$demo/$3.yaml" run="$demo/runs/$3"
    [ -f "$config" ] || say "$1" init "$2" --labeled 3 --output "$config" --test 0.3
    say "$1" train "$config" --output "$run" --set fit.steps=300
    say "$1" evaluate "$run" --split test
}

mkdir -p "$demo"
make_data volumes "$demo/data/volumes"
make_data scenes "$demo/data/scenes"
adapter medseg-ssl "$demo/data/volumes" volumes
adapter rsseg-ssl "$demo/data/scenes" scenes

printf '\nOpen the two reports:\n  %s\n  %s\n' "$demo/runs/volumes/report.html" "$demo/runs/scenes/report.html"
