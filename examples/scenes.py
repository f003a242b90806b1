"""From a folder of GeoTIFF scenes to a report: scenes.py CONFIG RUN_FOLDER."""

import sys
from pathlib import Path

from common import verbs
from rsseg_ssl.adapter import rsseg

config, folder = Path(sys.argv[1]), Path(sys.argv[2])
run = verbs.load(config, rsseg)
verbs.train(run, rsseg, folder)
print(verbs.evaluate(folder, rsseg, split="test"))
