"""Make small phantom data to try things on: make_data.py volumes|scenes FOLDER."""

import sys
from pathlib import Path

kind, folder = sys.argv[1], Path(sys.argv[2])
if kind == "volumes":
    from medseg_ssl.synthetic import make_volumes as make
else:
    from rsseg_ssl.synthetic import make_scenes as make
make(folder, cases=24, labeled=10, seed=0)
