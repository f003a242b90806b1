"""From a folder of NIfTI volumes to a report: volumes.py CONFIG RUN_FOLDER."""

import sys
from pathlib import Path

from common import verbs
from medseg_ssl.adapter import medseg

config, folder = Path(sys.argv[1]), Path(sys.argv[2])
run = verbs.load(config, medseg)
verbs.train(run, medseg, folder)
print(verbs.evaluate(folder, medseg, split="test"))
